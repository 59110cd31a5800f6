//! QUIC between nodes: one UDP port a daemon, mutual TLS, streams of `wire`'s messages.
//!
//! An [`Endpoint`] is server and client at once. As a manager it takes workers' sessions; as a
//! worker it keeps one to a manager, wherever that is reached; a node that is both talks to itself
//! through the same interface without a packet. A worker takes no connections, but for one that was
//! a manager: it tells others where to look now. Who may ask what is decided in one place,
//! [`may`]. Knows certificates and messages, nothing of what they mean to the cluster.

mod ask;
mod authorise;
mod endpoint;
mod join;
mod judge;
mod names;
mod on_smol;
mod outbox;
mod peers;
mod relay;
mod renew;
mod serve;
mod socket;
mod stream;
mod tls;
mod uplink;

pub use authorise::{Peer, Trusted, may};
pub use endpoint::{BindError, Config, Endpoint, Managers};
pub use join::{JoinError, Joined};
pub use renew::Renewed;
pub use serve::{Handler, IncomingStream};
pub use stream::{ByteReceiver, ByteSender, StreamError};
pub use tls::{Credentials, TlsError};

/// The UDP port of a daemon, as Swarm's TCP one.
pub const PORT: u16 = 2377;

use std::time::Duration;

/// How long one address may take to answer before the next is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long a peer may take for the first frame of a stream, and to grant it: one slow round trip
/// and a disk in between.
const HEADER_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
