//! `midge node update --availability drain --wait`: waits until a node is empty.

use super::{
    client::{self, Client, encode},
    exit::{CliError, Exit},
    human::{go_duration, items, text},
    poll,
    screen::{BARS_MAX, Line, Screen},
    task::place,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What was read of a node at about one time.
#[derive(Debug, Default)]
struct Polled {
    node: Value,
    /// Its tasks, those included that have ended there.
    tasks: Vec<Value>,
    /// All wanted tasks of the services of those.
    wanted: Vec<Value>,
}

/// A wait for one node.
#[derive(Debug)]
struct Drain {
    /// What the user calls the node.
    name: String,
    /// Zero is without end.
    timeout: Duration,
    /// How many tasks were left when most of them were.
    most: usize,
}

/// Waits until nothing of the cluster runs on a node, at most as long as `timeout` where that is
/// not zero.
pub(super) fn wait(
    client: &Client,
    id: &str,
    name: &str,
    timeout: Duration,
) -> Result<Exit, CliError> {
    let mut drain = Drain { name: name.to_owned(), timeout, most: 0 };
    let mut screen = Screen::new(false);
    let reader = (client.clone(), id.to_owned());
    let ended = poll::until(
        move || read(&reader.0, &reader.1),
        |polled, now| {
            let (lines, ended) = drain.step(&polled, now);
            screen.show(lines)?;
            Ok(ended)
        },
    )?;
    if let Some(result) = ended {
        return result.map(|()| Exit::Ok);
    }
    screen.say("Operation continuing in background.")?;
    screen.say(&format!("Use `midge node ps {name}` to check progress."))?;
    // Not done: whatever is to happen on an empty node must not happen yet.
    Ok(Exit::Interrupted)
}

fn read(client: &Client, id: &str) -> Result<Polled, CliError> {
    let list =
        |filters: &[String]| items(client.get(&format!("/tasks?{}", client::filters(filters)?))?);
    let node = client.get(&format!("/nodes/{}", encode(id)))?;
    let tasks = list(&[format!("node={id}")])?;
    let services: BTreeSet<&str> = tasks.iter().map(|task| text(task, "/ServiceID")).collect();
    let mut filters: Vec<String> = services.iter().map(|id| format!("service={id}")).collect();
    let wanted = if filters.is_empty() {
        Vec::new()
    } else {
        filters.extend(["ready", "running", "complete"].map(|s| format!("desired-state={s}")));
        list(&filters)?
    };
    Ok(Polled { node, tasks, wanted })
}

impl Drain {
    /// Looks at what was polled at `now`, the time since the wait began. Returns what is to be
    /// seen, and how the wait ended where it did.
    fn step(
        &mut self,
        polled: &Polled,
        now: Duration,
    ) -> (Vec<Line>, Option<Result<(), CliError>>) {
        let name = &self.name;
        let left: Vec<&Value> = polled.tasks.iter().filter(|task| is_left(task)).collect();
        let homeless = homeless(polled);
        self.most = self.most.max(left.len());
        if left.is_empty() && homeless.is_empty() {
            return (vec![Line::head(format!("{name} is drained"))], Some(Ok(())));
        }
        let mut lines = vec![self.overall(left.len(), homeless.len())];
        let down = text(&polled.node, "/Status/State") == "down";
        if down && !left.is_empty() {
            lines.push(Line::head(format!("{name} is down: nothing there can be told to stop")));
        }
        let stuck: Vec<(&str, String)> = homeless.iter().filter_map(|task| stuck(task)).collect();
        let shown = stuck.iter().map(|(name, why)| (*name, why.as_str()));
        if stuck.len() > BARS_MAX {
            lines.extend(Line::errors(shown));
        } else {
            lines.extend(shown.map(|(name, why)| Line::error(name, why)));
        }
        let late = !self.timeout.is_zero() && now >= self.timeout;
        (lines, late.then(|| Err(self.gave_up(&left, &homeless))))
    }

    fn overall(&self, left: usize, homeless: usize) -> Line {
        let mut text = format!("draining {}: {left} of {} tasks left", self.name, self.most);
        if homeless > 0 {
            text += &format!(", {homeless} not placed elsewhere yet");
        }
        Line::head(text)
    }

    fn gave_up(&self, left: &[&Value], homeless: &[&Value]) -> CliError {
        let name = &self.name;
        let mut said = format!("{name} is not drained after {}:", go_duration(self.timeout));
        let left = left.iter().map(|task| (name_of(task), text(task, "/Status/State").to_owned()));
        let homeless = homeless.iter().map(|task| {
            stuck(task).unwrap_or_else(|| (name_of(task), "not placed elsewhere yet".to_owned()))
        });
        let all: Vec<(&str, String)> = left.chain(homeless).collect();
        for (task, how) in all.iter().take(BARS_MAX) {
            said += &format!("\n  {task}: {how}");
        }
        if all.len() > BARS_MAX {
            said += &format!("\n  and {} more", all.len() - BARS_MAX);
        }
        CliError::failure(said)
            .hint(format!("the drain goes on; midge node ps {name} shows what is left there"))
    }
}

/// Returns what people call a task.
fn name_of(task: &Value) -> &str {
    text(task, "/Name")
}

/// Says why a task is not placed, where the scheduler did.
fn stuck(task: &Value) -> Option<(&str, String)> {
    let error = text(task, "/Status/Err");
    (!error.is_empty()).then(|| (name_of(task), format!("cannot be placed elsewhere: {error}")))
}

/// Tells whether a task is still to be told to stop, or still runs. A job's that is done stays
/// wanted for ever, and one that was never given to the node has nothing to end there.
fn is_left(task: &Value) -> bool {
    const ENDED: [&str; 5] = ["complete", "shutdown", "failed", "rejected", "orphaned"];
    const NOT_GIVEN: [&str; 3] = ["new", "allocated", "pending"];
    let state = text(task, "/Status/State");
    match text(task, "/DesiredState") {
        "ready" | "running" => true,
        "complete" => !ENDED.contains(&state),
        _ => !ENDED.contains(&state) && !NOT_GIVEN.contains(&state),
    }
}

/// Returns the tasks that take the place of one of this node's, and have no node yet.
fn homeless(polled: &Polled) -> Vec<&Value> {
    let mut places: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for task in &polled.tasks {
        places.entry(text(task, "/ServiceID")).or_default().insert(place(task));
    }
    let from_here = |task: &&Value| {
        let places = places.get(text(task, "/ServiceID"));
        places.is_some_and(|places| places.contains(&place(task)))
    };
    let drained = |task: &&Value| {
        super::human::list(task, "/Reasons").iter().any(|why| text(why, "/Code") == "node-drained")
    };
    let unplaced = polled.wanted.iter().filter(|task| text(task, "/NodeID").is_empty());
    unplaced.filter(drained).filter(from_here).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    /// Reads what was polled, one task a line: `NAME DESIRED STATE` of the node's own, `to NAME
    /// STATE ERROR` of those that are to take their places; `down` where the node is.
    fn polled(text: &str) -> Polled {
        let mut polled =
            Polled { node: json!({"Status": {"State": "ready"}}), ..Polled::default() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let task = |name: &str, desired: &str, state: &str, error: &str| {
                json!({
                    "Name": name, "ServiceID": name.split('.').next(), "DesiredState": desired,
                    "Status": {"State": state, "Err": error},
                    "Reasons": [{"Code": "node-drained"}],
                })
            };
            match words[..] {
                ["down"] => polled.node["Status"]["State"] = json!("down"),
                ["to", name, state, error] => {
                    polled.wanted.push(task(name, "ready", state, error));
                }
                ["to", name, state] => polled.wanted.push(task(name, "ready", state, "")),
                [name, desired, state] => polled.tasks.push(task(name, desired, state, "")),
                _ => panic!("{line}"),
            }
        }
        polled
    }

    /// Looks at one thing after another, each at its second.
    fn check(polls: &[(u64, &str)], expected: &Expect) {
        let timeout = Duration::from_secs(90);
        let mut drain = Drain { name: "pi3".to_owned(), timeout, most: 0 };
        let mut text = String::new();
        for (at, poll) in polls {
            let (lines, ended) = drain.step(&polled(poll), Duration::from_secs(*at));
            lines.iter().for_each(|line| text.push_str(&format!("{}\n", line.shown())));
            match ended {
                None => text.push_str("--\n"),
                Some(Ok(())) => text.push_str("=> done\n"),
                Some(Err(error)) => {
                    let hint = error.hint.as_deref().unwrap();
                    text.push_str(&format!("=> {error}\nhint: {hint}\n"));
                }
            }
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn a_node_becomes_empty() {
        check(
            &[
                (0, "web.1 running running\n web.2 running running\n job.1 complete complete"),
                (1, "web.1 shutdown running\n web.2 shutdown shutdown\n to web.1 pending"),
                // A global service's, which the node had no room for.
                (2, "web.1 shutdown shutdown\n all.x shutdown pending"),
            ],
            &expect![[r#"
                draining pi3: 2 of 2 tasks left
                --
                draining pi3: 1 of 2 tasks left, 1 not placed elsewhere yet
                --
                pi3 is drained
                => done
            "#]],
        );
    }

    #[test]
    fn what_cannot_go_elsewhere_is_waited_for_and_named() {
        let stuck = "db.1 shutdown shutdown\n web.2 shutdown running\n other.1 shutdown shutdown
            to db.1 pending no suitable node (scheduling constraints not satisfied on 2 nodes)
            to elsewhere.1 pending no suitable node\n to other.1 pending";
        check(
            &[(0, stuck), (89, &format!("down\n{stuck}")), (90, stuck)],
            &expect![[r#"
                draining pi3: 1 of 1 tasks left, 2 not placed elsewhere yet
                db.1: cannot be placed elsewhere: no suitable node (scheduling constraints not s…
                --
                draining pi3: 1 of 1 tasks left, 2 not placed elsewhere yet
                pi3 is down: nothing there can be told to stop
                db.1: cannot be placed elsewhere: no suitable node (scheduling constraints not s…
                --
                draining pi3: 1 of 1 tasks left, 2 not placed elsewhere yet
                db.1: cannot be placed elsewhere: no suitable node (scheduling constraints not s…
                => pi3 is not drained after 1m30s:
                  web.2: running
                  db.1: cannot be placed elsewhere: no suitable node (scheduling constraints not satisfied on 2 nodes)
                  other.1: not placed elsewhere yet
                hint: the drain goes on; midge node ps pi3 shows what is left there
            "#]],
        );
    }

    #[test]
    fn a_replacement_for_another_reason_is_not_waited_for() {
        let mut poll = polled("web.1 shutdown shutdown\n to web.1 pending no suitable node");
        poll.wanted[0]["Reasons"] = json!([{"Code": "service-scaled"}]);
        assert!(homeless(&poll).is_empty());
    }

    #[test]
    fn no_timeout_is_without_end() {
        let mut drain = Drain { name: "n".to_owned(), timeout: Duration::ZERO, most: 0 };
        let poll = polled("web.1 running running");
        assert!(drain.step(&poll, Duration::from_secs(1 << 40)).1.is_none());
    }
}
