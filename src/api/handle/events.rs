//! What happens, as Docker's stream of JSON objects.

use super::{
    super::{
        dto,
        filter::Filters,
        route::{Call, Reply, streaming},
        stream,
    },
    system::now,
};
use crate::{
    cluster::Refusal,
    types::{Date, Labels, Occurrence, OccurrenceKind},
    util::board::Reading,
};
use async_io::Timer;
use bytes::Bytes;
use futures_lite::{Stream, StreamExt as _, future, stream as streams};
use std::{sync::Arc, time::Duration};

/// Docker's filters of events.
const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// The filters that name an object, and take a prefix of its id or name.
const OBJECTS: &[&str] =
    &["config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume"];

/// What is told, last, to a reader that did not keep up. Docker's clients print it as any other.
const CUT_OFF: &str = "cut off: this client reads too slowly, events were lost";

pub(crate) async fn follow(call: Call) -> Reply {
    let filters = Filters::parse(call.query.get("filters"), FILTERS)?;
    let (since, until) = (call.query.date("since")?, call.query.date("until")?);
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(wrong_times());
    }
    let reading = call.node.occurrences().await?;
    Ok(streaming("application/json", stream::streamed(lines(reading, filters, since, until))))
}

fn wrong_times() -> Refusal {
    super::super::error::invalid("`since` time cannot be after `until` time")
}

/// Renders what was told since `since`, then what comes until `until`.
fn lines(
    reading: Reading<Occurrence>,
    filters: Filters,
    since: Option<Date>,
    until: Option<Date>,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let wanted = move |occurrence: &Occurrence| {
        until.is_none_or(|until| occurrence.date <= until) && fits(&filters, occurrence)
    };
    // Without any time, Docker tells nothing of the past.
    let since = since.or_else(|| until.map(|_| Date::EPOCH));
    let past: Vec<Arc<Occurrence>> = reading
        .recent
        .into_iter()
        .filter(|occurrence| since.is_some_and(|since| occurrence.date >= since))
        .collect();
    let end = until.map(|until| until.since(now()));
    let next = streams::unfold(Some((reading.next, end.map(deadline))), |state| async move {
        let (next, mut end) = state?;
        let item = async { Some(next.recv().await) };
        let ended = async {
            match &mut end {
                Some(end) => drop(end.await),
                None => future::pending().await,
            }
            None
        };
        match future::or(item, ended).await {
            Some(Ok(occurrence)) => Some((occurrence, Some((next, end)))),
            // The board went away with the reader's place on it.
            Some(Err(_)) => Some((Arc::new(cut_off()), None)),
            None => None,
        }
    });
    streams::iter(past).chain(next).filter_map(move |occurrence| {
        let last = occurrence.kind == OccurrenceKind::Daemon;
        (last || wanted(&occurrence)).then(|| line(&occurrence))
    })
}

fn deadline(wait: Duration) -> Timer {
    Timer::after(wait)
}

fn cut_off() -> Occurrence {
    Occurrence {
        date: now(),
        kind: OccurrenceKind::Daemon,
        action: CUT_OFF.to_owned(),
        id: String::new(),
        attributes: Labels::new(),
    }
}

fn line(occurrence: &Occurrence) -> Bytes {
    let mut text = serde_json::to_vec(&message(occurrence)).expect("text and numbers serialise");
    text.push(b'\n');
    Bytes::from(text)
}

fn message(occurrence: &Occurrence) -> dto::EventMessage {
    let Occurrence { date, kind, action, id, attributes } = occurrence;
    // What clients of old read; Docker has it for these two only.
    let old = matches!(kind, OccurrenceKind::Container | OccurrenceKind::Image);
    let from = match kind {
        OccurrenceKind::Container => attributes.get("image").cloned(),
        OccurrenceKind::Image => attributes.get("name").cloned(),
        _ => None,
    };
    dto::EventMessage {
        status: old.then(|| action.clone()),
        id: old.then(|| id.clone()),
        from,
        r#type: kind.as_str().to_owned(),
        action: action.clone(),
        actor: dto::EventActor { id: id.clone(), attributes: attributes.clone() },
        scope: kind.scope().to_owned(),
        time: date.unix_seconds(),
        time_nano: date.unix_nanos(),
    }
}

/// Tells whether something passes the filters, judged as Docker does.
fn fits(filters: &Filters, occurrence: &Occurrence) -> bool {
    let Occurrence { kind, action, id, attributes, .. } = occurrence;
    let name = attributes.get("name").map_or("", String::as_str);
    let plain = action.split_once(':').map_or(action.as_str(), |(plain, _)| plain);
    let object = |what: &&&str| {
        let own = *what == &kind.as_str();
        filters.fits(what, |wanted| own && (id.starts_with(wanted) || name.starts_with(wanted)))
    };
    let image = match kind {
        OccurrenceKind::Container => attributes.get("image").map_or("", String::as_str),
        _ => name,
    };
    let without_tag = |text: &str| {
        let bare = text.split('@').next().unwrap_or(text);
        match bare.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name.to_owned(),
            _ => bare.to_owned(),
        }
    };
    filters.fits("event", |wanted| wanted == action || wanted == plain)
        && filters.fits("type", |wanted| wanted == kind.as_str())
        && filters.fits("scope", |wanted| wanted == kind.scope())
        && OBJECTS.iter().filter(object).count() == OBJECTS.len()
        && filters.fits("image", |wanted| {
            [id.as_str(), image].iter().any(|t| *t == wanted || without_tag(t) == wanted)
        })
        && filters.labels("label", attributes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::board::{Board, BoardLimits};

    fn occurrence(kind: OccurrenceKind, action: &str, seconds: u64) -> Occurrence {
        let attributes = match kind {
            OccurrenceKind::Container => {
                vec![("image", "bb:1@sha256:0"), ("name", "web.1.x"), ("a", "1")]
            }
            _ => vec![("name", "web")],
        };
        Occurrence {
            date: Date::from_unix_seconds(seconds),
            kind,
            action: action.to_owned(),
            id: "abc".to_owned(),
            attributes: attributes.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        }
    }

    fn filters(text: &str) -> Filters {
        Filters::parse(Some(text), FILTERS).unwrap()
    }

    #[test]
    fn filters_are_dockers() {
        let die = occurrence(OccurrenceKind::Container, "die", 1);
        let health = occurrence(OccurrenceKind::Container, "health_status: healthy", 1);
        let service = occurrence(OccurrenceKind::Service, "update", 1);
        for (text, expected) in [
            ("{}", [true, true, true]),
            (r#"{"type":["service"]}"#, [false, false, true]),
            (r#"{"type":["service","container"]}"#, [true, true, true]),
            (r#"{"scope":["swarm"]}"#, [false, false, true]),
            (r#"{"event":["die","update"]}"#, [true, false, true]),
            (r#"{"event":["health_status"]}"#, [false, true, false]),
            (r#"{"event":["health_status: healthy"]}"#, [false, true, false]),
            (r#"{"container":["web.1"]}"#, [true, true, false]),
            (r#"{"service":["web"]}"#, [false, false, true]),
            (r#"{"service":["ab"],"type":["service"]}"#, [false, false, true]),
            (r#"{"image":["bb"]}"#, [true, true, false]),
            (r#"{"image":["bb:1@sha256:0"]}"#, [true, true, false]),
            (r#"{"image":["other"]}"#, [false, false, false]),
            (r#"{"label":["a=1"]}"#, [true, true, false]),
            (r#"{"label":["a=2"]}"#, [false, false, false]),
        ] {
            let found = [&die, &health, &service].map(|o| fits(&filters(text), o));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn messages_have_dockers_shape() {
        let shown = |o: &Occurrence| String::from_utf8(line(o).to_vec()).unwrap();
        assert_eq!(
            shown(&occurrence(OccurrenceKind::Service, "create", 3)),
            "{\"Type\":\"service\",\"Action\":\"create\",\"Actor\":{\"ID\":\"abc\",\"Attributes\":\
             {\"name\":\"web\"}},\"scope\":\"swarm\",\"time\":3,\"timeNano\":3000000000}\n"
        );
        let old = shown(&occurrence(OccurrenceKind::Container, "die", 3));
        assert!(
            old.starts_with(r#"{"status":"die","id":"abc","from":"bb:1@sha256:0","Type":"#),
            "{old}"
        );
    }

    fn actions(
        board: &Board<Occurrence>,
        since: Option<u64>,
        until: Option<u64>,
        count: usize,
        meanwhile: impl FnOnce(),
    ) -> Vec<String> {
        let date = |seconds: Option<u64>| seconds.map(Date::from_unix_seconds);
        let stream = lines(board.read().unwrap(), Filters::default(), date(since), date(until));
        meanwhile();
        let lines: Vec<Bytes> = smol::block_on(stream.take(count).collect());
        let action = |line: &Bytes| {
            let value: serde_json::Value = serde_json::from_slice(line).unwrap();
            value["Action"].as_str().unwrap().to_owned()
        };
        lines.iter().map(action).collect()
    }

    #[test]
    fn the_past_the_future_and_the_cut() {
        let board = Board::new(BoardLimits { recent: 8, waiting: 2, readers: 8 });
        for (number, action) in ["a", "b", "c"].iter().enumerate() {
            board.post(occurrence(OccurrenceKind::Image, action, number as u64 + 1));
        }
        let post = |action| board.post(occurrence(OccurrenceKind::Image, action, 9));
        assert_eq!(actions(&board, Some(2), None, 3, || post("d")), ["b", "c", "d"]);
        assert_eq!(actions(&board, None, None, 1, || post("e")), ["e"]);
        assert_eq!(actions(&board, None, Some(2), 9, || ()), ["a", "b"], "only the past, and ends");
        assert_eq!(actions(&board, Some(2), Some(3), 9, || ()), ["b", "c"]);
        let cut =
            actions(&board, None, None, 9, || ["f", "g", "h"].map(post).into_iter().collect());
        assert_eq!(cut, ["f", "g", CUT_OFF]);
    }
}
