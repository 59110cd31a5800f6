//! The HTTP client of registries: manifests and blobs, with authentication and mirrors.
//!
//! Blocking, to be called from a thread that may block. Knows the distribution protocol; must
//! not know where content is kept nor what an image is made of.

mod agent;
pub mod auth;
mod endpoint;

pub use agent::Resolve;
pub use endpoint::{Endpoint, RegistryConfig};

use crate::{
    runtime::image::document::{
        DOCKER_LIST, DOCKER_MANIFEST, MANIFEST_BYTES_MAX, OCI_INDEX, OCI_MANIFEST, digest,
    },
    types::{
        RegistryCredential,
        image::{Reference, is_digest},
    },
};
use auth::{TokenRequest, parse_challenges, parse_token};
use std::{
    collections::BTreeMap,
    io::Read,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Instant,
};
use ureq::{Body, http::Response};

/// How much of an error's body is read: the protocol's errors have some 200 bytes.
const ERROR_BYTES_MAX: u64 = 16 << 10;

/// How much of a token server's answer is read; the largest real tokens have some 10 KiB.
const TOKEN_BYTES_MAX: u64 = 256 << 10;

/// How many authorizations are remembered: one a repository and user in use.
const AUTHORIZATIONS_MAX: usize = 128;

/// How many characters of a registry's message are shown.
const MESSAGE_MAX: usize = 300;

/// A registry did not give what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It has not got it.
    #[error("{what} not found in registry {registry}: {message}")]
    NotFound {
        /// Reference or digest.
        what: String,
        /// The registry.
        registry: String,
        /// Its words.
        message: String,
    },
    /// It does not let us.
    #[error("access to {what} denied by registry {registry}: {message}")]
    Denied {
        /// Reference or digest.
        what: String,
        /// The registry.
        registry: String,
        /// Its words.
        message: String,
    },
    /// It wants to be asked in a way we do not know, or its token server refuses.
    #[error("cannot authenticate to registry {registry}: {message}")]
    Authentication {
        /// The registry.
        registry: String,
        /// Why.
        message: String,
        /// Whether trying again may help.
        temporary: bool,
    },
    /// It does not answer.
    #[error("cannot reach registry {registry}")]
    Unreachable {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The transfer broke off.
    #[error("the transfer from registry {registry} broke off")]
    Broken {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Any other answer.
    #[error("registry {registry} answered {status}: {message}")]
    Status {
        /// The registry.
        registry: String,
        /// The HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// An answer that breaks the protocol.
    #[error("registry {registry} gave an invalid answer: {message}")]
    Invalid {
        /// The registry.
        registry: String,
        /// What is wrong.
        message: String,
    },
}

impl RegistryError {
    /// Tells whether the registry knows who asks, or should, and does not let them.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Authentication { temporary: false, .. })
    }

    /// Tells whether trying again may help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Invalid { .. } => true,
            Self::Authentication { temporary, .. } => *temporary,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            Self::NotFound { .. } | Self::Denied { .. } => false,
        }
    }
}

/// An index or manifest as a registry gave it, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its digest.
    pub digest: String,
    /// The media type that the registry named; may be empty.
    pub content_type: String,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// A client of all registries. Clones share tokens and connections.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    config: RegistryConfig,
    resolve: Resolve,
    /// Made at the first use: its root certificates take memory that a node without a registry
    /// need not have.
    agent: OnceLock<ureq::Agent>,
    authorizations: Mutex<BTreeMap<Scope, Authorization>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What an authorization is good for. The secret is part of it: a changed password must not
/// ride on the old one's token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Scope {
    base: String,
    repository: String,
    credential: String,
}

#[derive(Clone)]
struct Authorization {
    header: String,
    expires: Option<Instant>,
}

impl Registry {
    /// Makes a client. `resolve` turns host names into addresses, within a deadline of its own.
    #[must_use]
    pub fn new(config: RegistryConfig, resolve: Resolve) -> Self {
        let inner = Inner {
            config,
            resolve,
            agent: OnceLock::new(),
            authorizations: Mutex::new(BTreeMap::new()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Fetches the index or manifest that a reference names, by digest where it has one. Blocks.
    ///
    /// # Errors
    ///
    /// No mirror has it, and the registry refuses, is away, or answers nonsense.
    pub fn manifest(
        &self,
        reference: &Reference,
        credential: Option<&RegistryCredential>,
    ) -> Result<Fetched, RegistryError> {
        let tag = reference.tag.as_deref().unwrap_or(crate::types::image::DEFAULT_TAG);
        let which = reference.digest.as_deref().unwrap_or(tag);
        let what = reference.to_string();
        let path = format!("/v2/{}/manifests/{which}", reference.repository);
        self.each_endpoint(reference, |endpoint| {
            let request = Request {
                endpoint,
                repository: &reference.repository,
                credential,
                path: &path,
                what: &what,
                accept: &[OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST].join(", "),
                offset: 0,
            };
            let response = self.get(&request)?;
            read_manifest(response, endpoint, reference.digest.as_deref())
        })
    }

    /// Opens a blob from `offset` on. The reader fails where the connection breaks or idles.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// No mirror has it, and the registry refuses, is away, or answers nonsense.
    pub fn blob(
        &self,
        reference: &Reference,
        blob: &str,
        offset: u64,
        credential: Option<&RegistryCredential>,
    ) -> Result<Box<dyn Read + Send>, RegistryError> {
        let path = format!("/v2/{}/blobs/{blob}", reference.repository);
        self.each_endpoint(reference, |endpoint| {
            let what = blob;
            let accept = "*/*";
            let repository = &reference.repository;
            let request =
                Request { endpoint, repository, credential, path: &path, what, accept, offset };
            let response = self.get(&request)?;
            open_blob(response, endpoint, offset)
        })
    }

    /// Asks a registry whether it takes a login; one that lets everybody in takes any. Mirrors are
    /// not asked. Blocks.
    ///
    /// # Errors
    ///
    /// It does not take it ([`RegistryError::is_refusal`]), is away, or answers nonsense.
    pub fn check_login(
        &self,
        registry: &str,
        credential: &RegistryCredential,
    ) -> Result<(), RegistryError> {
        let mut endpoints = self.inner.config.endpoints(registry);
        let origin = endpoints.pop().expect("the registry itself is always the last endpoint");
        let request = Request {
            endpoint: &origin,
            repository: "",
            credential: Some(credential),
            path: "/v2/",
            what: "the registry",
            accept: "*/*",
            offset: 0,
        };
        // What is remembered of this login may be from before the password was changed.
        self.forget(&request.scope());
        self.get(&request).map(drop)
    }

    /// Tries the mirrors in order, then the registry, whose error is the one that counts.
    fn each_endpoint<T>(
        &self,
        reference: &Reference,
        ask: impl Fn(&Endpoint) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut endpoints = self.inner.config.endpoints(&reference.registry);
        let origin = endpoints.pop().expect("the registry itself is always the last endpoint");
        for mirror in endpoints {
            match ask(&mirror) {
                Ok(found) => return Ok(found),
                Err(error) => tracing::debug!(%error, mirror = mirror.base, "a mirror has it not"),
            }
        }
        ask(&origin)
    }

    fn agent(&self) -> &ureq::Agent {
        self.inner.agent.get_or_init(|| agent::new(Arc::clone(&self.inner.resolve)))
    }

    fn get(&self, request: &Request<'_>) -> Result<Response<Body>, RegistryError> {
        let scope = request.scope();
        let known = self.authorization(&scope);
        let response = self.send(request, known.as_deref())?;
        if response.status() != 401 {
            return accept_status(response, request);
        }
        // Nothing known, or a token that expired early or was made for less.
        let challenges: Vec<_> = response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        drop(response);
        let authorization = self.authorize(request, &challenges)?;
        let header = authorization.header.clone();
        self.remember(scope.clone(), authorization);
        let response = self.send(request, Some(&header))?;
        if matches!(response.status().as_u16(), 401 | 403) {
            self.forget(&scope);
        }
        accept_status(response, request)
    }

    fn send(
        &self,
        request: &Request<'_>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, RegistryError> {
        let url = format!("{}{}", request.endpoint.base, request.path);
        let mut get = self.agent().get(url).header("accept", request.accept);
        if let Some(authorization) = authorization {
            get = get.header("authorization", authorization);
        }
        if request.offset > 0 {
            get = get.header("range", format!("bytes={}-", request.offset));
        }
        // A registry with TLS must not send us on to one without.
        let mut get = get.config().https_only(!request.endpoint.is_plain());
        if request.endpoint.is_loopback() {
            get = get.proxy(None);
        }
        get.build().call().map_err(|source| request.unreachable(source))
    }

    fn authorize(
        &self,
        request: &Request<'_>,
        challenges: &[auth::Challenge],
    ) -> Result<Authorization, RegistryError> {
        let find = |scheme: &str| challenges.iter().find(|c| c.scheme == scheme);
        if let Some(challenge) = find("bearer") {
            let scope = match request.repository {
                "" => String::new(),
                repository => format!("repository:{repository}:pull"),
            };
            let Some(token) = TokenRequest::from_challenge(challenge, &scope) else {
                return Err(request.unauthenticated("it names no token server", false));
            };
            return self.fetch_token(request, &token);
        }
        match (find("basic"), request.credential()) {
            (Some(_), Some(credential)) if !credential.is_token => {
                Ok(Authorization { header: auth::basic(credential), expires: None })
            }
            (Some(_), Some(_)) => Err(request.unauthenticated(
                "it wants a user and a password, the login holds an identity token",
                false,
            )),
            (Some(_), None) => Err(RegistryError::Denied {
                what: request.what.to_owned(),
                registry: request.registry(),
                message: "no basic auth credentials".to_owned(),
            }),
            (None, _) => {
                let schemes: Vec<_> = challenges.iter().map(|c| c.scheme.as_str()).collect();
                let message = format!("it asks for {:?}, which is not supported", schemes);
                Err(request.unauthenticated(&message, false))
            }
        }
    }

    fn fetch_token(
        &self,
        request: &Request<'_>,
        token: &TokenRequest,
    ) -> Result<Authorization, RegistryError> {
        let plain = request.endpoint.is_plain();
        if !plain && !token.realm.starts_with("https://") {
            let message = format!("its token server {} has no TLS", token.realm);
            return Err(request.unauthenticated(&message, false));
        }
        let asked = match request.credential() {
            Some(credential) if credential.is_token => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", &token.service),
                    ("client_id", "midge"),
                    ("scope", &token.scope),
                    ("refresh_token", &credential.secret),
                ];
                let post = self.agent().post(&token.realm).config().https_only(!plain).build();
                post.send_form(form)
            }
            credential => {
                let mut get = self.agent().get(&token.realm);
                if !token.scope.is_empty() {
                    get = get.query("scope", &token.scope);
                }
                if !token.service.is_empty() {
                    get = get.query("service", &token.service);
                }
                if let Some(credential) = credential {
                    get = get.query("account", &credential.username);
                    get = get.header("authorization", auth::basic(credential));
                }
                get.config().https_only(!plain).build().call()
            }
        };
        let mut response = asked.map_err(|error| {
            let message = format!("its token server {} does not answer: {error}", token.realm);
            request.unauthenticated(&message, true)
        })?;
        let status = response.status().as_u16();
        if status != 200 {
            let message = error_message(&mut response);
            let message = format!("its token server answered {status}: {message}");
            return Err(request.unauthenticated(&message, status >= 500 || status == 429));
        }
        let body = response.body_mut().with_config().limit(TOKEN_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| request.unauthenticated(&error.to_string(), true))?;
        let Some((token, life)) = parse_token(&body) else {
            return Err(request.unauthenticated("its token server gave no token", false));
        };
        let header = format!("Bearer {token}");
        Ok(Authorization { header, expires: Some(Instant::now() + life) })
    }

    fn authorization(&self, scope: &Scope) -> Option<String> {
        let known = self.inner.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(scope)?;
        let alive = found.expires.is_none_or(|expires| Instant::now() < expires);
        alive.then(|| found.header.clone())
    }

    fn remember(&self, scope: Scope, authorization: Authorization) {
        let mut known = self.inner.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= AUTHORIZATIONS_MAX {
            let now = Instant::now();
            known.retain(|_, a| a.expires.is_some_and(|expires| now < expires));
        }
        if known.len() >= AUTHORIZATIONS_MAX {
            known.clear();
        }
        known.insert(scope, authorization);
    }

    fn forget(&self, scope: &Scope) {
        let mut known = self.inner.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(scope);
    }
}

struct Request<'a> {
    endpoint: &'a Endpoint,
    /// Empty where it is about the registry as a whole.
    repository: &'a str,
    credential: Option<&'a RegistryCredential>,
    path: &'a str,
    what: &'a str,
    accept: &'a str,
    offset: u64,
}

impl Request<'_> {
    /// A mirror never sees what was given for the registry.
    fn credential(&self) -> Option<&RegistryCredential> {
        self.credential.filter(|_| self.endpoint.origin)
    }

    fn scope(&self) -> Scope {
        let credential = self
            .credential()
            .map(|c| digest(format!("{}\0{}\0{}", c.username, c.secret, c.is_token).as_bytes()));
        Scope {
            base: self.endpoint.base.clone(),
            repository: self.repository.to_owned(),
            credential: credential.unwrap_or_default(),
        }
    }

    fn registry(&self) -> String {
        self.endpoint.registry()
    }

    fn unauthenticated(&self, message: &str, temporary: bool) -> RegistryError {
        let message = message.to_owned();
        RegistryError::Authentication { registry: self.registry(), message, temporary }
    }

    fn unreachable(&self, source: ureq::Error) -> RegistryError {
        RegistryError::Unreachable { registry: self.registry(), source: Box::new(source) }
    }
}

impl Endpoint {
    fn registry(&self) -> String {
        self.base.split_once("://").map_or(self.base.as_str(), |(_, host)| host).to_owned()
    }
}

fn accept_status(
    mut response: Response<Body>,
    request: &Request<'_>,
) -> Result<Response<Body>, RegistryError> {
    let status = response.status().as_u16();
    if matches!(status, 200 | 206) {
        return Ok(response);
    }
    let message = error_message(&mut response);
    let (what, registry) = (request.what.to_owned(), request.registry());
    Err(match status {
        404 => RegistryError::NotFound { what, registry, message },
        401 | 403 => RegistryError::Denied { what, registry, message },
        _ => RegistryError::Status { registry, status, message },
    })
}

/// Returns a registry's own words: the first error of its JSON, or the text as it is.
fn error_message(response: &mut Response<Body>) -> String {
    let body = response.body_mut().with_config().limit(ERROR_BYTES_MAX).read_to_vec();
    let body = body.unwrap_or_default();
    let first = serde_json::from_slice::<serde_json::Value>(&body).ok().and_then(|value| {
        let error = value.get("errors")?.get(0)?;
        let text = |key: &str| error.get(key).and_then(|v| v.as_str()).filter(|v| !v.is_empty());
        text("message").or_else(|| text("code")).map(str::to_owned)
    });
    let text = first.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    let text: String = text.chars().filter(|c| !c.is_control()).take(MESSAGE_MAX).collect();
    if text.trim().is_empty() { "no reason given".to_owned() } else { text.trim().to_owned() }
}

fn read_manifest(
    mut response: Response<Body>,
    endpoint: &Endpoint,
    wanted: Option<&str>,
) -> Result<Fetched, RegistryError> {
    let registry = endpoint.registry();
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or("").to_owned()
    };
    let (content_type, claimed) = (header("content-type"), header("docker-content-digest"));
    let body = response.body_mut().with_config().limit(MANIFEST_BYTES_MAX).read_to_vec();
    let body = match body {
        Ok(body) => body,
        Err(ureq::Error::BodyExceedsLimit(_)) => {
            let message = format!("a manifest of more than {MANIFEST_BYTES_MAX} bytes");
            return Err(RegistryError::Invalid { registry, message });
        }
        Err(source) => {
            return Err(RegistryError::Unreachable { registry, source: Box::new(source) });
        }
    };
    // A proxy's or a hotspot's page of its own also comes with status 200.
    if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
        let message = "something that is no manifest".to_owned();
        return Err(RegistryError::Invalid { registry, message });
    }
    let digest = digest(&body);
    // By tag, the header is all there is to compare with; by digest, what was asked for counts.
    let expected = wanted.or_else(|| is_digest(&claimed).then_some(claimed.as_str()));
    if expected.is_some_and(|expected| expected != digest) {
        let message =
            format!("a manifest whose digest is {digest}, not {}", expected.unwrap_or(""));
        return Err(RegistryError::Invalid { registry, message });
    }
    Ok(Fetched { digest, content_type, body })
}

fn open_blob(
    response: Response<Body>,
    endpoint: &Endpoint,
    offset: u64,
) -> Result<Box<dyn Read + Send>, RegistryError> {
    let registry = endpoint.registry();
    let partial = response.status() == 206;
    if partial {
        let range = response.headers().get("content-range").and_then(|value| value.to_str().ok());
        let starts = range
            .and_then(|range| range.trim().strip_prefix("bytes "))
            .and_then(|range| range.split_once('-'))
            .and_then(|(start, _)| start.trim().parse::<u64>().ok());
        if starts != Some(offset) {
            let message = format!("range {range:?} where {offset} was asked for");
            return Err(RegistryError::Invalid { registry, message });
        }
    }
    let mut reader = response.into_body().into_with_config().limit(u64::MAX).reader();
    if !partial && offset > 0 {
        // It knows no ranges: what is already here is read once more and dropped.
        let skipped = std::io::copy(&mut (&mut reader).take(offset), &mut std::io::sink());
        match skipped {
            Ok(skipped) if skipped == offset => (),
            Ok(_) => {
                let message = "a blob that is shorter than before".to_owned();
                return Err(RegistryError::Invalid { registry, message });
            }
            Err(source) => return Err(RegistryError::Broken { registry, source }),
        }
    }
    Ok(Box::new(reader))
}
