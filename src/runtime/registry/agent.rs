//! The HTTP agent: deadlines, trust, and names resolved without the C library.

use rustls::crypto::ring;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};
use ureq::{
    config::{Config, RedirectAuthHeaders},
    http::Uri,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

/// Turns a host name and a port into addresses.
pub type Resolve = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// How long connecting may take, TLS included: a slow link needs some round trips of a second.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// How long a registry may think before it answers; a proxying one fetches from afar first.
const RESPONSE_LIMIT: Duration = Duration::from_secs(60);

/// How long a transfer may stand still before it counts as cut. Layers may take hours, silence
/// may not.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// How many redirects are followed: a blob takes one, to the registry's storage.
const REDIRECTS_MAX: u32 = 5;

/// How many addresses of a name are tried.
const ADDRESSES_MAX: usize = 8;

/// Where distributions keep the certificates that the operator trusts.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The largest bundle that is read; distributions' have some 220 KiB.
const BUNDLE_BYTES_MAX: u64 = 4 << 20;

/// Makes the agent.
pub(super) fn new(resolve: Resolve) -> ureq::Agent {
    with_roots(resolve, roots())
}

fn with_roots(resolve: Resolve, roots: RootCerts) -> ureq::Agent {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .root_certs(roots)
        .build();
    let config = Config::builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .user_agent(concat!("midge/", env!("CARGO_PKG_VERSION")))
        .max_redirects(REDIRECTS_MAX)
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .timeout_connect(Some(CONNECT_LIMIT))
        .timeout_recv_response(Some(RESPONSE_LIMIT))
        .timeout_per_read(Some(IDLE_LIMIT))
        .timeout_per_write(Some(IDLE_LIMIT))
        .build();
    ureq::Agent::with_parts(config, DefaultConnector::default(), OurResolver(resolve))
}

/// The machine's own bundle where there is one, since it holds the private authorities that its
/// operator added (or took out); Mozilla's list inside the binary otherwise.
fn roots() -> RootCerts {
    let chosen = std::env::var_os("SSL_CERT_FILE");
    let chosen = chosen.iter().map(Path::new);
    for path in chosen.chain(BUNDLES.iter().map(Path::new)) {
        let certificates = read_bundle(path).unwrap_or_default();
        if !certificates.is_empty() {
            tracing::debug!(path = %path.display(), count = certificates.len(), "trust roots");
            return RootCerts::from(certificates);
        }
    }
    RootCerts::WebPki
}

fn read_bundle(path: &Path) -> io::Result<Vec<Certificate<'static>>> {
    let mut pem = Vec::new();
    let file = std::fs::File::open(path)?;
    io::Read::read_to_end(&mut io::Read::take(file, BUNDLE_BYTES_MAX), &mut pem)?;
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    Ok(certificates.collect())
}

struct OurResolver(Resolve);

impl std::fmt::Debug for OurResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OurResolver")
    }
}

impl Resolver for OurResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let plain = uri.scheme_str() == Some("http");
        let port = uri.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let found = if let Ok(address) = host.parse::<IpAddr>() {
            vec![SocketAddr::new(address, port)]
        } else if host == "localhost" {
            let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            vec![v4, SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
        } else {
            (self.0)(host, port)?
        };
        let mut addresses = self.empty();
        for address in found.into_iter().take(ADDRESSES_MAX) {
            addresses.push(address);
        }
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    /// Answers two TLS connections for `reg.test`, and returns port and certificate.
    fn tls_server() -> (u16, Vec<u8>) {
        let key = rcgen::generate_simple_self_signed(["reg.test".to_owned()]).unwrap();
        let certificate = key.cert.der().clone();
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(&certificate)
        )
        .into_bytes();
        let private =
            rustls_pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], private)
                .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let mut stream = stream.unwrap();
                let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut tls = rustls::Stream::new(&mut tls, &mut stream);
                // A client that does not trust us hangs up here.
                if tls.read(&mut [0; 1024]).is_ok() {
                    let _sent = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
                }
            }
        });
        (port, pem)
    }

    #[test]
    fn a_private_authority_of_the_machine_is_trusted_and_a_stranger_is_not() {
        let (port, pem) = tls_server();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &pem).unwrap();
        let resolve: Resolve = Arc::new(|host, port| {
            assert_eq!(host, "reg.test");
            Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))])
        });
        let url = format!("https://reg.test:{port}/v2/");
        let bundle = RootCerts::from(read_bundle(file.path()).unwrap());
        let agent = with_roots(Arc::clone(&resolve), bundle);
        let get = |agent: &ureq::Agent| agent.get(&url).config().proxy(None).build().call();
        assert_eq!(get(&agent).unwrap().body_mut().read_to_string().unwrap(), "hi");
        let stranger = get(&with_roots(resolve, RootCerts::WebPki)).unwrap_err().to_string();
        assert!(stranger.contains("certificate"), "{stranger}");
    }
}
