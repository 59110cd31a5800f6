//! Changes of the machine's addresses, told by the kernel as they happen. Nothing is asked again and
//! again: an idle machine is not woken.

use super::NetworkError;
use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use rtnetlink::{MulticastGroup, new_multicast_connection_with_socket, sys::SmolSocket};

/// Tells when an address came or went.
pub struct AddressChanges {
    messages: BoxStream<'static, ()>,
    _connection: smol::Task<()>,
}

impl std::fmt::Debug for AddressChanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressChanges").finish_non_exhaustive()
    }
}

impl AddressChanges {
    /// Listens to the kernel, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn new() -> Result<Self, NetworkError> {
        let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let opened = new_multicast_connection_with_socket::<SmolSocket>(&groups);
        let (connection, _handle, messages) = opened.map_err(|source| NetworkError::Link {
            what: "listen for changes of addresses".into(),
            source,
        })?;
        let messages = messages.map(|_| ()).boxed();
        Ok(Self { messages, _connection: smol::spawn(connection) })
    }

    /// Waits for the next change. Returns false where the kernel says no more: what changed since is
    /// not known then.
    pub async fn next(&mut self) -> bool {
        self.messages.next().await.is_some()
    }

    /// Takes in the changes that are known already: they need not be looked at one by one.
    pub fn skip(&mut self) {
        while let Some(Some(())) = self.messages.next().now_or_never() {}
    }
}
