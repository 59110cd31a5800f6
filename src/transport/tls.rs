//! TLS for QUIC: whose certificates are accepted, and what a refusal means in words.

use super::judge::{self, Judge, provider};
use crate::{
    pki::{Anchors, Identity, IdentityError, Shown, TrustedClock},
    types::{Date, Trust},
};
use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectionError, ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{client::Resumption, server::NoServerSessionStorage};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::{fmt, sync::Arc, time::Duration};

/// The protocol and its version, that of `wire`, agreed on in the handshake. A build that speaks two
/// names both, the newer first.
const ALPN: &[u8] = b"midge/1";

/// Without a packet for this long a connection is dead. Shorter than three heartbeats, so that a
/// worker looks for another manager about when the manager misses it.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the dialling end speaks up where nothing else is said: twice before the peer gives
/// up. Longer than a heartbeat, and put off by each, so that an ordinary session never needs it.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How many packets the peer takes before it has to say so at once; fewer it confirms with what it
/// sends anyway, or after 25 ms. A call and its answer then are two packets, not four.
const UNACKED_MAX: u32 = 8;

/// Streams that a peer may have open: log readers, image loads and the session, with room.
const STREAMS_MAX: u32 = 128;

/// Bytes of one stream that may be under way unread: fills a link of 100 Mbit/s at 80 ms.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// Bytes of all of a connection's streams that may be under way unread: what a peer that reads
/// nothing can make a 512 MB board hold.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Streams that a peer may have open before its certificate was judged, and for good where it is no
/// member: whoever joins asks one thing after another.
pub(super) const GUEST_STREAMS_MAX: u32 = 4;

/// Bytes of all of such a connection's streams that may be under way unread: what a stranger may say
/// on each of them.
const GUEST_WINDOW: u32 = 256 * 1024;

/// A node's standing in its cluster, as other nodes can check it.
#[derive(Clone)]
pub struct Credentials {
    /// The node's certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS #8 DER.
    pub key: Vec<u8>,
    /// The cluster's roots, and what is shown beside the certificate.
    pub trust: Trust,
}

impl fmt::Debug for Credentials {
    /// Leaves the key out, so that no log ever holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate names no node.
    #[error("the node's certificate is unusable")]
    Identity(#[source] IdentityError),
    /// TLS does not take them.
    #[error("the node's certificate, key or root is unusable: {0}")]
    Rejected(String),
}

fn rejected(error: impl fmt::Display) -> TlsError {
    TlsError::Rejected(error.to_string())
}

/// Credentials, checked and made ready for connections.
pub(super) struct Ready {
    pub(super) identity: Identity,
    pub(super) trust: Trust,
    pub(super) anchors: Anchors,
    /// Until when the certificate is good.
    pub(super) not_after: Date,
    /// How to connect to managers.
    pub(super) client: ClientConfig,
    /// How to connect to whichever node of the cluster there is.
    pub(super) asking: ClientConfig,
    pub(super) server: ServerConfig,
}

impl Ready {
    pub(super) fn new(
        credentials: &Credentials,
        clock: &TrustedClock,
        judge: &Arc<Judge>,
    ) -> Result<Self, TlsError> {
        let leaf = &credentials.certificate;
        let identity = Identity::from_certificate(leaf).map_err(TlsError::Identity)?;
        let not_after = crate::pki::validity(leaf).map_err(TlsError::Identity)?.not_after;
        let trust = credentials.trust.clone();
        let anchors = Anchors::new(&trust.roots).map_err(rejected)?;
        let chain = || {
            let all = [leaf].into_iter().chain(&trust.cross_signed);
            all.map(|der| CertificateDer::from(der.clone())).collect::<Vec<_>>()
        };
        let key = || PrivateKeyDer::from(PrivatePkcs8KeyDer::from(credentials.key.clone()));
        let (judge, anchors_of) = (|| Arc::clone(judge), || anchors.clone());
        let members =
            judge::Members { judge: judge(), anchors: anchors_of(), provider: provider() };
        let clock_of = || Arc::new(clock.clone());
        let mut server = rustls::ServerConfig::builder_with_details(provider(), clock_of())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(rejected)?
            .with_client_cert_verifier(Arc::new(members))
            .with_single_cert(chain(), key())
            .map_err(rejected)?;
        // A resumed session would not check the certificate again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![ALPN.to_vec()];
        let to = |shown| -> Result<ClientConfig, TlsError> {
            let (anchors, provider) = (anchors_of(), provider());
            let answering = judge::Answering { shown, judge: judge(), anchors, provider };
            let mut client =
                rustls::ClientConfig::builder_with_details(judge::provider(), clock_of())
                    .with_protocol_versions(&[&rustls::version::TLS13])
                    .map_err(rejected)?
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(answering))
                    .with_client_auth_cert(chain(), key())
                    .map_err(rejected)?;
            client.resumption = Resumption::disabled();
            client.alpn_protocols = vec![ALPN.to_vec()];
            quic_client(client)
        };
        let (client, asking) = (to(Shown::Manager)?, to(Shown::Member)?);
        let server = quic_server(server)?;
        Ok(Self { identity, trust, anchors, not_after, client, asking, server })
    }
}

fn quic_server(config: rustls::ServerConfig) -> Result<ServerConfig, TlsError> {
    let crypto = QuicServerConfig::try_from(config).map_err(rejected)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut limits = limits();
    limits
        .max_concurrent_bidi_streams(GUEST_STREAMS_MAX.into())
        .receive_window(GUEST_WINDOW.into());
    config.transport_config(Arc::new(limits));
    Ok(config)
}

/// Gives a peer that connected here, and is a member, what a member may have.
pub(super) fn admit(connection: &quinn::Connection) {
    connection.set_receive_window(CONNECTION_WINDOW.into());
    connection.set_max_concurrent_bi_streams(STREAMS_MAX.into());
}

fn quic_client(config: rustls::ClientConfig) -> Result<ClientConfig, TlsError> {
    let crypto = QuicClientConfig::try_from(config).map_err(rejected)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut limits = limits();
    limits.keep_alive_interval(Some(KEEP_ALIVE));
    config.transport_config(Arc::new(limits));
    Ok(config)
}

fn limits() -> TransportConfig {
    let mut limits = TransportConfig::default();
    let idle = VarInt::from_u32(5_000).into();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(UNACKED_MAX.into());
    debug_assert_eq!(IDLE_TIMEOUT.as_millis(), 5_000);
    limits
        .max_idle_timeout(Some(idle))
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(CONNECTION_WINDOW.into())
        .datagram_receive_buffer_size(None)
        .ack_frequency_config(Some(acks));
    limits
}

/// Returns how to connect before anything is known of the cluster: whoever answers is let in, and
/// [`check_manager`] decides afterwards.
pub(super) fn stranger(clock: &TrustedClock) -> Result<ClientConfig, TlsError> {
    stranger_of(ALPN, clock)
}

/// As [`stranger`], by this protocol.
pub(super) fn stranger_of(protocol: &[u8], clock: &TrustedClock) -> Result<ClientConfig, TlsError> {
    let mut config =
        rustls::ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(rejected)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge::Unchecked { provider: provider() }))
            .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![protocol.to_vec()];
    quic_client(config)
}

/// Checks that a chain is a manager's, under this root, now.
pub(super) fn check_manager(
    chain: &[CertificateDer<'_>],
    root: &[u8],
    clock: &TrustedClock,
) -> Result<(), TlsError> {
    let anchors = Anchors::new(&[root.to_vec()]).map_err(rejected)?;
    let standing = anchors.standing(&[], Shown::Manager, chain, clock.date()).map_err(rejected)?;
    match standing.expired {
        None => Ok(()),
        Some(ended) => Err(TlsError::Rejected(format!("its certificate ran out on {ended}"))),
    }
}

/// Why our end closed a connection, as the peer reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// Nothing is wrong.
    Done = 0,
    /// The peer's node was removed from the cluster.
    Removed = 1,
    /// The same node connected once more.
    Replaced = 2,
    /// The peer's certificate names no node of this cluster.
    NoMember = 3,
    /// There are too many connections.
    Busy = 4,
    /// One end has another certificate by now, or checks by other roots.
    Renewed = 5,
}

impl Close {
    pub(super) fn apply(self, connection: &quinn::Connection) {
        let reason = match self {
            Self::Done => "",
            Self::Removed => "the node was removed from the cluster",
            Self::Replaced => "the node connected from elsewhere",
            Self::NoMember => "the certificate is not of a node of this cluster",
            Self::Busy => "the manager has too many connections",
            Self::Renewed => "certificates have changed; connect again",
        };
        connection.close(VarInt::from_u32(self as u32), reason.as_bytes());
    }

    /// Tells whether the peer closed the connection for this reason.
    pub(super) fn is_cause(self, error: &ConnectionError) -> bool {
        matches!(error, ConnectionError::ApplicationClosed(close)
            if close.error_code == VarInt::from_u32(self as u32))
    }
}

/// TLS alerts that mean something to a user; RFC 8446, section 6.
fn alert(code: u64, ours: bool) -> Option<String> {
    // QUIC carries an alert as 0x100 and its number.
    let alert = u8::try_from(code.checked_sub(0x100)?).ok()?;
    let whose = if ours { "the manager's" } else { "this node's" };
    Some(match alert {
        45 => format!("{whose} certificate has expired or is not yet valid; check both clocks"),
        48 | 51 => format!(
            "{whose} certificate is of another cluster, or of another of its root certificates"
        ),
        42 | 43 | 46 => format!("{whose} certificate was not accepted"),
        120 => "the peers speak different versions of midge's protocol".to_owned(),
        _ => return None,
    })
}

/// Returns why a connection ended, in words.
pub(super) fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TransportError(error) => alert(u64::from(error.code), true)
            .unwrap_or_else(|| format!("the connection failed: {error}")),
        ConnectionError::ConnectionClosed(close) => alert(u64::from(close.error_code), false)
            .unwrap_or_else(|| format!("the peer ended the connection: {close}")),
        ConnectionError::ApplicationClosed(close) if !close.reason.is_empty() => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        ConnectionError::ApplicationClosed(_) => "the peer ended the connection".to_owned(),
        ConnectionError::TimedOut => "the peer fell silent".to_owned(),
        ConnectionError::LocallyClosed => "the connection was ended here".to_owned(),
        other => other.to_string(),
    }
}
