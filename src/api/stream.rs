//! Bodies: JSON, JSON lines, Docker's framed log stream, and what clients upload.

use super::{
    dto,
    local::{BoxStream, ExecInput, ExecItem, ExecStream, LogItem, LogLine, LogSource, Progress},
};
use crate::{types::Date, util::deadline::within};
use bytes::{BufMut, Bytes, BytesMut};
use futures_lite::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use std::{convert::Infallible, io, time::Duration};

/// The body of every answer. An error cuts the connection, so that the client never takes a part
/// for the whole.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How long an upload may stand still. A load over a slow link trickles, it does not stop: after a
/// minute without a byte the client is gone.
const UPLOAD_IDLE: Duration = Duration::from_secs(60);

/// How long the rest of an upload is read that nobody wants: on a local socket that is gigabytes.
const REST_LIMIT: Duration = Duration::from_secs(10);

/// The header of a frame: stream, three zeros, length.
const FRAME_HEADER: usize = 8;

/// The stream number of Docker's own errors.
const SYSTEM_ERROR: u8 = 3;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A body that may break off.
pub(crate) fn fallible(items: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(items.map(|bytes| bytes.map(Frame::data))).boxed_unsync()
}

pub(crate) fn streamed(items: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(items.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync()
}

/// Renders progress as one JSON object a line.
pub(crate) fn progress_lines(steps: BoxStream<Progress>) -> impl Stream<Item = Bytes> + Send {
    steps.map(|step| {
        let line = match step {
            Progress::Status { id, status, amount } => dto::ProgressLine {
                id,
                status,
                progress_detail: Some(
                    amount
                        .map(|(current, total)| dto::ProgressDetail { current, total })
                        .unwrap_or_default(),
                ),
                ..Default::default()
            },
            Progress::Text(stream) => dto::ProgressLine { stream, ..Default::default() },
            Progress::Error(message) => dto::ProgressLine {
                error: message.clone(),
                error_detail: Some(dto::ErrorBody { message }),
                ..Default::default()
            },
        };
        let mut text = serde_json::to_vec(&line).expect("text and numbers always serialise");
        text.extend_from_slice(b"\r\n");
        Bytes::from(text)
    })
}

/// How log lines are rendered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogFormat {
    /// As they are, for terminals; otherwise in Docker's frames.
    pub(crate) raw: bool,
    /// With the time before.
    pub(crate) timestamps: bool,
    /// With node, service and task before.
    pub(crate) details: bool,
}

/// Renders a log stream. What could not be read is told at the end.
pub(crate) fn log_bytes(
    items: BoxStream<LogItem>,
    format: LogFormat,
) -> impl Stream<Item = Bytes> + Send {
    stream::unfold((Some(items), Vec::new()), move |(items, mut missing)| async move {
        let mut items = items?;
        loop {
            match items.next().await {
                Some(LogItem::Line(line)) => {
                    return Some((log_line(&line, format), (Some(items), missing)));
                }
                Some(LogItem::Incomplete(reason)) => missing.push(reason),
                None if missing.is_empty() => return None,
                None => return Some((incomplete(&missing, format), (None, Vec::new()))),
            }
        }
    })
}

fn incomplete(reasons: &[String], format: LogFormat) -> Bytes {
    let message = format!(
        "warning: incomplete log stream. some logs could not be retrieved for the following reasons: {}\n",
        reasons.join(", ")
    );
    if format.raw { Bytes::from(message) } else { frame(SYSTEM_ERROR, &[message.as_bytes()]) }
}

fn log_line(line: &LogLine, format: LogFormat) -> Bytes {
    let mut prefix = String::new();
    if format.timestamps {
        prefix.push_str(&fixed_date(line.date));
        prefix.push(' ');
    }
    if format.details {
        let from = &line.from;
        for (key, value) in &line.attributes {
            prefix.push_str(&format!("{}={},", escaped(key), escaped(value)));
        }
        prefix.push_str(&format!(
            "com.docker.swarm.node.id={},com.docker.swarm.service.id={},\
             com.docker.swarm.task.id={} ",
            from.node, from.service, from.task
        ));
    }
    let stream = match line.source {
        LogSource::Stdout => 1,
        LogSource::Stderr => 2,
    };
    if format.raw {
        let mut bytes = BytesMut::with_capacity(prefix.len() + line.line.len());
        bytes.put_slice(prefix.as_bytes());
        bytes.put_slice(&line.line);
        return bytes.freeze();
    }
    frame(stream, &[prefix.as_bytes(), &line.line])
}

/// Writes text as in the query of an address: attributes are told apart by commas and blanks.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            // Writing to memory cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

fn frame(stream: u8, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = BytesMut::with_capacity(FRAME_HEADER + length);
    bytes.put_slice(&[stream, 0, 0, 0]);
    bytes.put_u32(u32::try_from(length).expect("a log line is far below 4 GiB"));
    for part in parts {
        bytes.put_slice(part);
    }
    bytes.freeze()
}

/// RFC 3339 with all nine digits, so that columns line up; Docker's clients cut at fixed places.
fn fixed_date(date: Date) -> String {
    let seconds = Date::from_unix_seconds(date.unix_seconds()).to_string();
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), date.unix_nanos() % 1_000_000_000)
}

/// The streams of a command as a client reads them: as they are for a terminal, else in Docker's
/// frames.
pub(crate) struct ExecBytes {
    tty: bool,
    pieces: ExecPieces,
}

/// Both directions.
pub(crate) struct ExecPieces {
    /// None where nothing takes input.
    pub(crate) input: Option<async_channel::Sender<ExecInput>>,
    pub(crate) output: BoxStream<Bytes>,
}

impl ExecBytes {
    pub(crate) fn running(exec: ExecStream) -> Self {
        let ExecStream { tty, input, output } = exec;
        let output = output.map(move |item| match item {
            ExecItem::Stdout(bytes) | ExecItem::Stderr(bytes) if tty => bytes,
            ExecItem::Stdout(bytes) => frame(1, &[&bytes]),
            ExecItem::Stderr(bytes) => frame(2, &[&bytes]),
            ExecItem::Failed(text) => complaint(&text, tty),
        });
        let pieces = ExecPieces { input: Some(input), output: output.boxed() };
        Self { tty, pieces }
    }

    /// A command that could not be run: all there is is why.
    pub(crate) fn failed(message: &str, tty: bool) -> Self {
        let output = stream::once(complaint(message, tty)).boxed();
        Self { tty, pieces: ExecPieces { input: None, output } }
    }

    /// Returns the media type.
    pub(crate) fn kind(&self) -> &'static str {
        if self.tty {
            "application/vnd.docker.raw-stream"
        } else {
            "application/vnd.docker.multiplexed-stream"
        }
    }

    pub(crate) fn into_pieces(self) -> ExecPieces {
        self.pieces
    }

    /// Ends the input at once.
    pub(crate) fn output_only(self) -> BoxStream<Bytes> {
        self.pieces.output
    }
}

fn complaint(text: &str, tty: bool) -> Bytes {
    let line = format!("{text}\r\n");
    if tty { Bytes::from(line) } else { frame(2, &[line.as_bytes()]) }
}

/// An upload that is read to its end even where nobody wants the rest: a client that still sends
/// would otherwise see its connection break before it read why it was refused.
struct Upload(Option<Incoming>);

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take() else { return };
        let rest = async move { while let Some(Ok(_)) = body.frame().await {} };
        smol::spawn(within(REST_LIMIT, rest)).detach();
    }
}

/// Turns an upload into a stream of its bytes. Ends with an error where the client stops sending.
pub(crate) fn upload(body: Incoming) -> BoxStream<io::Result<Bytes>> {
    Box::pin(stream::unfold(Upload(Some(body)), |mut upload| async move {
        loop {
            let body = upload.0.as_mut()?;
            let error = match within(UPLOAD_IDLE, body.frame()).await {
                Some(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Some((Ok(data), upload)),
                    Err(_) => continue,
                },
                Some(None) => return None,
                Some(Some(Err(error))) => io::Error::new(io::ErrorKind::UnexpectedEof, error),
                None => io::Error::new(io::ErrorKind::TimedOut, "the client stopped sending"),
            };
            upload.0 = None;
            return Some((Err(error), upload));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_log_lines_have_nine_digits() {
        assert_eq!(
            fixed_date(Date::from_unix_nanos(1_795_231_469_694_735_240)),
            "2026-11-21T03:24:29.694735240Z"
        );
        assert_eq!(fixed_date(Date::from_unix_seconds(1)), "1970-01-01T00:00:01.000000000Z");
    }

    #[test]
    fn commands_are_framed_unless_they_have_a_terminal() {
        let read = |tty: bool| {
            let (input, _) = async_channel::bounded(1);
            let items = [
                ExecItem::Stdout("a".into()),
                ExecItem::Stderr("b".into()),
                ExecItem::Failed("c".to_owned()),
            ];
            let output = stream::iter(items).boxed();
            let exec = ExecBytes::running(ExecStream { tty, input, output });
            let pieces: Vec<Bytes> = smol::block_on(exec.output_only().collect());
            pieces.concat()
        };
        assert_eq!(
            read(false),
            b"\x01\0\0\0\0\0\0\x01a\x02\0\0\0\0\0\0\x01b\x02\0\0\0\0\0\0\x03c\r\n"
        );
        assert_eq!(read(true), b"abc\r\n");
    }

    #[test]
    fn frames_are_dockers() {
        assert_eq!(&frame(2, &[b"ab", b"c"])[..], b"\x02\0\0\0\0\0\0\x03abc");
    }
}
