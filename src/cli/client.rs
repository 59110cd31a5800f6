//! The HTTP client of the daemon's socket.

use super::{
    exit::{CliError, Exit},
    suggest,
};
use crate::util::{deadline::within, unblock::unblock};
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::HeaderValue,
};
use serde_json::Value;
use smol::net::unix::UnixStream;
use smol_hyper::rt::FuturesIo;
use std::{io::Read, path::PathBuf, time::Duration};

/// Where the daemon listens unless told otherwise.
pub(crate) const DEFAULT_HOST: &str = "unix:///run/midge/midge.sock";

/// How long the daemon may take to accept a connection: it is on this machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long reading the names for a hint may take: the error is more urgent than its hint.
const HINT_LIMIT: Duration = Duration::from_secs(2);

/// The longest answer that is read whole: a list of 100,000 tasks is about 150 MB.
const ANSWER_MAX: usize = 256 << 20;

/// The piece in which an upload is read: large enough to be few, small enough for a small board.
const UPLOAD_CHUNK: usize = 128 << 10;

type Body =
    Either<Full<Bytes>, StreamBody<async_channel::Receiver<Result<Frame<Bytes>, std::io::Error>>>>;

/// A client of one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// A request that goes beyond a path.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// `X-Registry-Auth`, where a registry login goes along.
    pub(crate) registry_auth: Option<String>,
    /// The JSON body.
    pub(crate) body: Option<Value>,
}

impl Client {
    /// Takes the address that the user gave: `unix:///path`.
    pub(crate) fn new(host: &str) -> Result<Self, CliError> {
        match host.strip_prefix("unix://") {
            Some(path) if path.starts_with('/') => Ok(Self { socket: path.into() }),
            _ => Err(CliError::usage(format!("invalid host {host:?}"))
                .hint("a host is written unix:///path/to/midge.sock")),
        }
    }

    /// Returns the path of the daemon's socket.
    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Sends a GET and reads the JSON answer.
    pub(crate) fn get(&self, path: &str) -> Result<Value, CliError> {
        self.json(Method::GET, path, Call::default())
    }

    /// Sends a GET whose answer is worth waiting for no longer than `limit`; none where it does not
    /// come.
    pub(crate) fn get_within(&self, path: &str, limit: Duration) -> Option<Value> {
        smol::block_on(within(limit, self.list_for_hint(path))).flatten()
    }

    /// Sends a POST with a JSON body and reads the JSON answer.
    pub(crate) fn post(&self, path: &str, body: Value) -> Result<Value, CliError> {
        self.json(Method::POST, path, Call { body: Some(body), ..Call::default() })
    }

    /// Sends a DELETE and reads the JSON answer.
    pub(crate) fn delete(&self, path: &str) -> Result<Value, CliError> {
        self.json(Method::DELETE, path, Call::default())
    }

    /// Sends a request and reads the JSON answer; no answer reads as null.
    pub(crate) fn json(&self, method: Method, path: &str, call: Call) -> Result<Value, CliError> {
        smol::block_on(async {
            let body = call.body.as_ref().map(Value::to_string).unwrap_or_default();
            let response = self.send(method, path, &call, Either::Left(Full::from(body))).await?;
            let bytes = read_whole(response.into_body()).await?;
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            serde_json::from_slice(&bytes)
                .map_err(|error| CliError::failure(format!("unreadable answer: {error}")))
        })
    }

    /// Sends a POST with a JSON body and reads an answer that is no JSON.
    pub(crate) fn post_for_bytes(&self, path: &str, body: Value) -> Result<Bytes, CliError> {
        smol::block_on(async {
            let text = body.to_string();
            let call = Call { body: Some(body), ..Call::default() };
            let response =
                self.send(Method::POST, path, &call, Either::Left(Full::from(text))).await?;
            read_whole(response.into_body()).await
        })
    }

    /// Sends a request, uploads `input` where there is one, and hands every piece of the answer to
    /// `each` as it comes, until the answer ends or `each` returns false.
    pub(crate) fn stream(
        &self,
        method: Method,
        path: &str,
        call: &Call,
        input: Option<Box<dyn Read + Send>>,
        mut each: impl FnMut(&[u8]) -> Result<bool, CliError>,
    ) -> Result<(), CliError> {
        smol::block_on(async {
            let body = match input {
                Some(input) => Either::Right(StreamBody::new(upload(input))),
                None => Either::Left(Full::default()),
            };
            let mut body = self.send(method, path, call, body).await?.into_body();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| broken(&error))?;
                if let Some(data) = frame.data_ref()
                    && !each(data)?
                {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Asks for a header of what is at `path`; none where nothing is there.
    pub(crate) fn head(&self, path: &str, header: &str) -> Result<Option<String>, CliError> {
        smol::block_on(async {
            let body = Either::Left(Full::default());
            let request = request(Method::HEAD, path, &Call::default(), body)?;
            let response = self.dispatch(request).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            if !response.status().is_success() {
                // The answer to a HEAD has no body that could say why: a GET has.
                let body = Either::Left(Full::default());
                self.send(Method::GET, path, &Call::default(), body).await?;
            }
            let value = response.headers().get(header).and_then(|value| value.to_str().ok());
            value
                .map(|value| Some(value.to_owned()))
                .ok_or_else(|| CliError::failure(format!("the answer has no header {header}")))
        })
    }

    /// Sends a POST that turns the connection into something else; returns the connection, and
    /// what came over it already.
    pub(crate) async fn hijack(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<(UnixStream, Bytes), CliError> {
        let call = Call { body: Some(body.clone()), ..Call::default() };
        let mut request =
            request(Method::POST, path, &call, Either::Left(Full::from(body.to_string())))?;
        let headers = request.headers_mut();
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("tcp"));
        let response = self.dispatch(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(response).await);
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| broken(&error))?;
        let parts = upgraded
            .downcast::<FuturesIo<UnixStream>>()
            .map_err(|_| CliError::failure("the connection is of another kind"))?;
        Ok((parts.io.into_inner(), parts.read_buf))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        call: &Call,
        body: Body,
    ) -> Result<Response<Incoming>, CliError> {
        let response = self.dispatch(request(method, path, call, body)?).await?;
        let status = response.status();
        // Not modified: it was so before.
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let error = refused(response).await;
        if status == StatusCode::NOT_FOUND { Err(self.with_names(error).await) } else { Err(error) }
    }

    async fn dispatch(&self, request: Request<Body>) -> Result<Response<Incoming>, CliError> {
        let stream = within(CONNECT_LIMIT, UnixStream::connect(&self.socket))
            .await
            .unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(FuturesIo::new(stream))
                .await
                .map_err(|error| broken(&error))?;
        smol::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "the connection to the daemon ended");
            }
        })
        .detach();
        sender.send_request(request).await.map_err(|error| broken(&error))
    }

    /// Reads a list that only helps to say something better: where it cannot be had, it is done
    /// without.
    async fn list_for_hint(&self, path: &str) -> Option<Value> {
        let empty = Either::Left(Full::default());
        let response =
            self.dispatch(request(Method::GET, path, &Call::default(), empty).ok()?).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        serde_json::from_slice(&read_whole(response.into_body()).await.ok()?).ok()
    }

    /// Adds the names that are like one that was not found.
    async fn with_names(&self, error: CliError) -> CliError {
        let Some((kind, name)) = suggest::missing(&error.message) else { return error };
        match within(HINT_LIMIT, self.list_for_hint(kind.list)).await.flatten() {
            Some(answer) => {
                let hint = suggest::hint(kind, name, &answer);
                error.hint(hint)
            }
            None => error,
        }
    }

    fn unreachable(&self, error: &std::io::Error) -> CliError {
        let path = self.socket.display();
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "run this as root, or as a member of the group that owns the socket (midge)"
                    .to_owned()
            }
            _ => format!("is the daemon running? start it with: midge daemon --socket {path}"),
        };
        CliError {
            exit: Exit::Unreachable,
            message: format!("cannot reach the midge daemon at unix://{path}: {error}"),
            hint: Some(hint),
        }
    }
}

fn request(method: Method, path: &str, call: &Call, body: Body) -> Result<Request<Body>, CliError> {
    let mut request = Request::builder().method(method).uri(path).header("host", "midge");
    if call.body.is_some() {
        request = request.header("content-type", "application/json");
    }
    if matches!(body, Either::Right(_)) {
        request = request.header("content-type", "application/x-tar");
    }
    if let Some(auth) = &call.registry_auth {
        request = request.header("x-registry-auth", auth);
    }
    request.body(body).map_err(|error| CliError::failure(format!("cannot ask for {path}: {error}")))
}

fn broken(error: &hyper::Error) -> CliError {
    CliError {
        exit: Exit::Unreachable,
        message: format!("the connection to the midge daemon broke: {error}"),
        hint: None,
    }
}

async fn refused(response: Response<Incoming>) -> CliError {
    let status = response.status();
    let message = match read_whole(response.into_body()).await {
        Ok(bytes) => serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|body| Some(body.get("message")?.as_str()?.to_owned()))
            .unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(error) => return error,
    };
    let message = if message.is_empty() { status.to_string() } else { message };
    // The daemon speaks to Docker's clients as well, and names their command.
    let message = message.replace("\"docker swarm ", "\"midge swarm ");
    let hint = hint_for(status, &message);
    CliError {
        exit: Exit::Failure,
        message: format!("Error response from daemon: {message}"),
        hint: hint.map(ToOwned::to_owned),
    }
}

/// Returns what to do about a refusal whose own words do not say it.
fn hint_for(status: StatusCode, message: &str) -> Option<&'static str> {
    if message.contains("update out of sequence") {
        return Some("somebody else changed it first; look at it again and repeat the command");
    }
    if message.contains("already part of a swarm") {
        return Some("midge info shows which one; midge swarm leave takes the node out of it");
    }
    (status == StatusCode::INTERNAL_SERVER_ERROR)
        .then_some("this is likely a defect of midge; its log says more")
}

async fn read_whole(body: Incoming) -> Result<Bytes, CliError> {
    let limited = http_body_util::Limited::new(body, ANSWER_MAX);
    let collected = limited
        .collect()
        .await
        .map_err(|error| CliError::failure(format!("the answer broke off: {error}")))?;
    Ok(collected.to_bytes())
}

fn upload(
    mut input: Box<dyn Read + Send>,
) -> async_channel::Receiver<Result<Frame<Bytes>, std::io::Error>> {
    let (sender, receiver) = async_channel::bounded(4);
    unblock(move || {
        let mut chunk = vec![0; UPLOAD_CHUNK];
        loop {
            let item = match input.read(&mut chunk) {
                Ok(0) => return,
                Ok(n) => Ok(Frame::data(Bytes::copy_from_slice(&chunk[..n]))),
                Err(error) => Err(error),
            };
            let ended = item.is_err();
            if sender.send_blocking(item).is_err() || ended {
                return;
            }
        }
    })
    .detach();
    receiver
}

/// Percent-encodes a value for a query or one part of a path.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Renders `--filter key=value` options as the query that Docker's API takes.
pub(crate) fn filters(options: &[String]) -> Result<String, CliError> {
    let mut map: std::collections::BTreeMap<String, std::collections::BTreeMap<String, bool>> =
        std::collections::BTreeMap::new();
    for option in options {
        let (key, value) = option.split_once('=').ok_or_else(|| {
            CliError::usage(format!("invalid filter {option:?}"))
                .hint("a filter is written key=value, for example --filter name=web")
        })?;
        map.entry(key.trim().to_ascii_lowercase()).or_default().insert(value.to_owned(), true);
    }
    if map.is_empty() {
        return Ok(String::new());
    }
    let json = serde_json::to_string(&map)
        .map_err(|error| CliError::failure(format!("cannot encode the filters: {error}")))?;
    Ok(format!("filters={}", encode(&json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_socket_paths() {
        assert!(Client::new("unix:///run/x.sock").is_ok());
        for bad in ["tcp://1.2.3.4", "unix://rel", "/run/x.sock", ""] {
            assert_eq!(Client::new(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn filters_are_maps_of_maps() {
        let options = ["name=a".to_owned(), "name=b".to_owned()];
        assert_eq!(
            filters(&options).unwrap(),
            format!("filters={}", encode(r#"{"name":{"a":true,"b":true}}"#))
        );
        assert_eq!(filters(&["x".to_owned()]).unwrap_err().exit, Exit::Usage);
    }
}
