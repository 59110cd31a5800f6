//! The one table of method, path and handler, and what surrounds every handler.

use super::{
    API_VERSION, API_VERSION_MIN, decode,
    error::{invalid, not_found, status, unsupported},
    handle,
    local::{BoxFuture, LocalNode},
    query::{self, Query},
    stream::{self, Body},
};
use crate::{
    api::dto,
    cluster::{Class, Refusal},
    types::absent,
    util::deadline::within,
};
use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::{Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};

/// The largest JSON body that is read. Docker's own specs are a few kilobytes; a service with the
/// longest environment the kernel takes (2 MiB) still fits.
const BODY_MAX: usize = 4 * 1024 * 1024;

/// How long a JSON body may take to arrive over a local socket.
const BODY_WAIT: Duration = Duration::from_secs(30);

/// How long a body is waited for that nobody wants. Clients send it right behind the head.
const UNWANTED_WAIT: Duration = Duration::from_secs(1);

/// One request, taken apart.
pub(crate) struct Call {
    pub(crate) node: Arc<dyn LocalNode>,
    /// What stood for the braces of the path.
    pub(crate) params: Vec<String>,
    pub(crate) query: Query,
    /// The version of the API that the client speaks.
    pub(crate) version: (u16, u16),
    pub(crate) headers: HeaderMap,
    pub(crate) body: Incoming,
    /// The connection itself, where the client wants it to become something else.
    pub(crate) upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl Call {
    /// Reads the body as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        let body = Limited::new(&mut self.body, BODY_MAX);
        let bytes = match within(BODY_WAIT, body.collect()).await {
            Some(Ok(collected)) => collected.to_bytes(),
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(invalid(format!("request body larger than {BODY_MAX} bytes")));
            }
            Some(Err(error)) => return Err(invalid(format!("cannot read the body: {error}"))),
            None => return Err(invalid("the request body did not arrive in time")),
        };
        if bytes.is_empty() {
            return Err(invalid("got EOF while reading request body"));
        }
        decode::from_slice(&bytes).map_err(|error| invalid(format!("invalid JSON: {error}")))
    }

    /// The only, or first, brace of the path.
    pub(crate) fn name(&self) -> &str {
        self.params.first().map_or("", String::as_str)
    }
}

/// What a handler gives back.
pub(crate) type Reply = Result<Response<Body>, Refusal>;

type Handler = fn(Call) -> BoxFuture<'static, Reply>;

struct Route {
    method: Method,
    /// Segments; `{}` stands for one, `{*}` for one or more.
    path: &'static str,
    /// The API version that has it first.
    since: (u16, u16),
    handler: Handler,
}

macro_rules! routes {
    ($($method:ident $path:literal $major:literal . $minor:literal => $module:ident::$function:ident,)*) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            since: ($major, $minor),
            handler: |call| Box::pin(handle::$module::$function(call)),
        }),*]
    };
}

static ROUTES: &[Route] = routes![
    GET "_ping" 1 . 24 => system::ping,
    HEAD "_ping" 1 . 24 => system::ping,
    GET "version" 1 . 24 => system::version,
    GET "info" 1 . 24 => system::info,
    GET "events" 1 . 24 => events::follow,
    POST "auth" 1 . 24 => login::check,
    GET "system/df" 1 . 25 => volume::disk_usage,
    GET "swarm" 1 . 24 => swarm::inspect,
    POST "swarm/init" 1 . 24 => swarm::init,
    POST "swarm/join" 1 . 24 => swarm::join,
    POST "swarm/leave" 1 . 24 => swarm::leave,
    POST "swarm/update" 1 . 24 => swarm::update,
    GET "swarm/unlockkey" 1 . 24 => swarm::unlock_key,
    POST "swarm/unlock" 1 . 24 => swarm::unlock,
    GET "nodes" 1 . 24 => node::list,
    GET "nodes/{}" 1 . 24 => node::inspect,
    DELETE "nodes/{}" 1 . 24 => node::remove,
    POST "nodes/{}/update" 1 . 24 => node::update,
    GET "services" 1 . 24 => service::list,
    POST "services/create" 1 . 24 => service::create,
    GET "services/{}" 1 . 24 => service::inspect,
    GET "services/{}/why" 1 . 24 => service::why,
    DELETE "services/{}" 1 . 24 => service::remove,
    POST "services/{}/update" 1 . 24 => service::update,
    GET "services/{}/logs" 1 . 24 => task::service_logs,
    GET "tasks" 1 . 24 => task::list,
    GET "tasks/{}" 1 . 24 => task::inspect,
    GET "tasks/{}/logs" 1 . 29 => task::logs,
    GET "tasks/{}/why" 1 . 24 => task::why,
    GET "images/json" 1 . 24 => image::list,
    POST "images/create" 1 . 24 => image::pull,
    POST "images/load" 1 . 24 => image::load,
    POST "images/prune" 1 . 25 => image::prune,
    GET "images/{*}/json" 1 . 24 => image::inspect,
    DELETE "images/{*}" 1 . 24 => image::remove,
    GET "distribution/{*}/json" 1 . 30 => image::resolve,
    GET "containers/json" 1 . 24 => container::list,
    GET "containers/{}/json" 1 . 24 => container::inspect,
    GET "containers/{}/logs" 1 . 24 => task::container_logs,
    POST "containers/{}/exec" 1 . 24 => exec::create,
    POST "exec/{}/start" 1 . 24 => exec::start,
    POST "exec/{}/resize" 1 . 24 => exec::resize,
    GET "exec/{}/json" 1 . 24 => exec::inspect,
    HEAD "containers/{}/archive" 1 . 24 => archive::stat,
    GET "containers/{}/archive" 1 . 24 => archive::get,
    PUT "containers/{}/archive" 1 . 24 => archive::put,
    GET "containers/{}/stats" 1 . 24 => stats::stats,
    GET "containers/{}/top" 1 . 24 => stats::top,
    POST "containers/{}/kill" 1 . 24 => ending::kill,
    POST "containers/{}/stop" 1 . 24 => ending::stop,
    POST "containers/{}/restart" 1 . 24 => ending::restart,
    POST "containers/{}/wait" 1 . 24 => ending::wait,
    GET "networks" 1 . 24 => network::list,
    GET "networks/{}" 1 . 24 => network::inspect,
    GET "secrets" 1 . 25 => system::none,
    GET "configs" 1 . 30 => system::none,
    GET "plugins" 1 . 25 => system::none,
    GET "volumes" 1 . 24 => volume::list,
    POST "volumes/create" 1 . 24 => volume::create,
    POST "volumes/prune" 1 . 25 => volume::prune,
    GET "volumes/{}" 1 . 24 => volume::inspect,
    DELETE "volumes/{}" 1 . 24 => volume::remove,
    POST "midge/images/load" 1 . 24 => image::load,
    POST "midge/backup" 1 . 24 => backup::backup,
    POST "midge/restore" 1 . 24 => backup::restore,
    GET "midge/images/json" 1 . 24 => image::list,
    POST "midge/images/prune" 1 . 24 => image::prune,
    GET "midge/images/{*}/json" 1 . 24 => image::inspect,
    DELETE "midge/images/{*}" 1 . 24 => image::remove,
    GET "midge/system/df" 1 . 24 => volume::disk_usage,
    GET "midge/volumes" 1 . 24 => volume::list,
    POST "midge/volumes/create" 1 . 24 => volume::create,
    POST "midge/volumes/prune" 1 . 24 => volume::prune,
    GET "midge/volumes/{}" 1 . 24 => volume::inspect,
    DELETE "midge/volumes/{}" 1 . 24 => volume::remove,
];

/// Takes in what follows the head of a request that is refused by its path alone. Many clients send it
/// before they read, and would see a broken connection in place of the reason.
async fn discard(body: Incoming) {
    let _unwanted = within(UNWANTED_WAIT, Limited::new(body, BODY_MAX).collect()).await;
}

/// Finds path parameters where `path` fits `pattern`.
fn fit(pattern: &str, path: &[String]) -> Option<Vec<String>> {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let greedy = pattern.contains(&"{*}");
    if path.len() < pattern.len() || (!greedy && path.len() > pattern.len()) {
        return None;
    }
    let surplus = path.len() - pattern.len();
    let mut params = Vec::new();
    let mut at = 0;
    for part in pattern {
        let taken = if part == "{*}" { surplus + 1 } else { 1 };
        let piece = path[at..at + taken].join("/");
        at += taken;
        match part {
            "{}" | "{*}" if piece.is_empty() => return None,
            "{}" | "{*}" => params.push(piece),
            _ if part == piece => {}
            _ => return None,
        }
    }
    Some(params)
}

/// Reads `v1.41`; none where the segment is no version.
fn version(segment: &str) -> Option<(u16, u16)> {
    let (major, minor) = segment.strip_prefix('v')?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn refuse_version((major, minor): (u16, u16)) -> Option<Refusal> {
    let (low, high) = (API_VERSION_MIN, API_VERSION);
    if (major, minor) < low {
        return Some(invalid(format!(
            "client version {major}.{minor} is too old. Minimum supported API version is {}.{}, \
             please upgrade your client to a newer version",
            low.0, low.1
        )));
    }
    ((major, minor) > high).then(|| {
        invalid(format!(
            "client version {major}.{minor} is too new. Maximum supported API version is {}.{}",
            high.0, high.1
        ))
    })
}

/// Answers one request.
pub(crate) async fn dispatch(
    node: Arc<dyn LocalNode>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let mut path: Vec<String> =
        parts.uri.path().trim_start_matches('/').split('/').map(str::to_owned).collect();
    let asked = path.first().and_then(|segment| version(segment));
    if let Some(version) = asked {
        if let Some(refusal) = refuse_version(version) {
            discard(body).await;
            return refused(&refusal);
        }
        path.remove(0);
    }
    let path: Vec<String> = path.iter().map(|segment| query::decode(segment, false)).collect();
    let asked = asked.unwrap_or(API_VERSION);
    let mut other_method = false;
    for route in ROUTES {
        let Some(params) = fit(route.path, &path) else { continue };
        if route.method != parts.method {
            other_method = true;
            continue;
        }
        if asked < route.since {
            continue;
        }
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let call =
            Call { node, params, query, version: asked, headers: parts.headers, body, upgrade };
        return match (route.handler)(call).await {
            Ok(response) => response,
            Err(refusal) => refused(&refusal),
        };
    }
    discard(body).await;
    let absent = absent::request(parts.method.as_str(), |known| fit(known, &path).is_some());
    if let Some(absent) = absent {
        return refused(&unsupported(absent.advice));
    }
    if other_method {
        let mut response = refused(&not_found("page not found"));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return response;
    }
    refused(&not_found("page not found"))
}

/// Puts the headers of every answer on it.
pub(crate) fn with_headers(mut response: Response<Body>) -> Response<Body> {
    let version = format!("{}.{}", API_VERSION.0, API_VERSION.1);
    let headers = response.headers_mut();
    for (name, value) in [
        ("api-version", version.as_str()),
        ("ostype", "linux"),
        ("docker-experimental", "false"),
        ("server", concat!("midge/", env!("CARGO_PKG_VERSION"), " (linux)")),
    ] {
        let value = HeaderValue::from_str(value).expect("plain text is a header");
        headers.insert(name, value);
    }
    response
}

pub(crate) fn refused(refusal: &Refusal) -> Response<Body> {
    let body = dto::ErrorBody { message: refusal.message.clone() };
    json_with(status(refusal.class), &body)
        .unwrap_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR))
}

/// The answer to a request whose handler panicked.
pub(crate) fn panicked() -> Response<Body> {
    let message = "midge failed to answer this request, which is a defect; its log has more";
    refused(&Refusal::new(Class::Internal, message))
}

pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    bytes_with(status, "", Bytes::new())
}

pub(crate) fn json(value: &impl Serialize) -> Reply {
    json_with(StatusCode::OK, value)
}

pub(crate) fn json_with(status: StatusCode, value: &impl Serialize) -> Reply {
    let mut text = serde_json::to_vec(value).map_err(|error| {
        Refusal::new(Class::Internal, format!("cannot render the answer: {error}"))
    })?;
    text.push(b'\n');
    Ok(bytes_with(status, "application/json", text))
}

pub(crate) fn bytes_with(
    status: StatusCode,
    kind: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(stream::full(bytes));
    *response.status_mut() = status;
    if !kind.is_empty() {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

pub(crate) fn streaming(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Draws the id of a new request to the leader.
pub(crate) fn request_id() -> crate::types::RequestId {
    crate::types::RequestId::from_bits(rand::random())
}

/// Reads base 64 for URLs with or without padding, as different clients send it.
pub(crate) fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = |alphabet| GeneralPurpose::new(alphabet, config).decode(text);
    engine(&base64::alphabet::URL_SAFE).or_else(|_| engine(&base64::alphabet::STANDARD)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn patterns_take_names_with_slashes() {
        let name = |text: &str| vec![text.to_owned()];
        assert_eq!(fit("images/{*}/json", &path("images/a/b:1/json")), Some(name("a/b:1")));
        assert_eq!(fit("images/{*}/json", &path("images/json")), None);
        assert_eq!(fit("nodes/{}", &path("nodes/a")), Some(name("a")));
        assert_eq!(fit("nodes/{}", &path("nodes/a/b")), None);
        assert_eq!(fit("nodes/{}", &path("nodes/")), None);
        assert_eq!(fit("nodes", &path("nodes")), Some(Vec::new()));
    }

    #[test]
    fn what_is_answered_is_not_called_absent() {
        for route in ROUTES {
            let absent = absent::request(route.method.as_str(), |known| known == route.path);
            assert!(absent.is_none(), "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn only_the_known_versions_are_spoken() {
        assert_eq!(version("v1.41"), Some((1, 41)));
        assert_eq!(version("version"), None);
        assert!(refuse_version((1, 23)).is_some() && refuse_version((1, 48)).is_some());
        assert!(refuse_version((1, 24)).is_none() && refuse_version((1, 47)).is_none());
    }
}
