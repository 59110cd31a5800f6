//! Managers' names, looked up anew each time that a manager is looked for.
//!
//! A name server that does not answer holds up nobody for long: what a name meant last is tried
//! meanwhile, and an answer that comes late serves the next round.

use super::{
    CONNECT_LIMIT,
    stream::{StreamError, within},
};
use crate::util::{dns::Resolver, unbroken::to_its_end};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// Names that are remembered: those that a user writes, with room for those of before.
const NAMES_MAX: usize = 64;

/// How long a name server is waited for where it is known what the name meant last: what it takes to
/// answer over a slow link.
const KNOWN_LIMIT: Duration = Duration::from_secs(2);

/// Looks up names. Cheap to clone; all clones know the same.
#[derive(Debug, Clone)]
pub(super) struct Names {
    resolver: Resolver,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    last: BTreeMap<String, Vec<SocketAddr>>,
    under_way: BTreeSet<String>,
}

impl Names {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self { resolver, known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Whoever panicked under the lock left the maps whole: every change is one insertion.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the addresses of a `host:port`, a few at most.
    ///
    /// # Errors
    ///
    /// The name has none, or nobody says in time, and it never had any.
    pub(super) async fn resolve(&self, pair: &str) -> Result<Vec<SocketAddr>, StreamError> {
        if let Ok(address) = pair.parse() {
            return Ok(vec![address]);
        }
        let last = self.known().last.get(pair).cloned();
        let limit = if last.is_some() { KNOWN_LIMIT } else { CONNECT_LIMIT };
        match (within(limit, self.look_up(pair)).await, last) {
            (Ok(found), _) | (Err(_), Some(found)) => Ok(found),
            (Err(error), None) => Err(error),
        }
    }

    /// Asks the name servers. Whoever stops waiting does not stop the question: the next one finds
    /// what came of it.
    async fn look_up(&self, pair: &str) -> Result<Vec<SocketAddr>, StreamError> {
        if !self.known().under_way.insert(pair.to_owned()) {
            return Err(StreamError::Broken("the name servers have not answered yet".to_owned()));
        }
        let (names, pair) = (self.clone(), pair.to_owned());
        let found = to_its_end(async move {
            let found = names.resolver.resolve_pair(&pair, super::PORT).await;
            names.take(&pair, found)
        });
        let broken = || StreamError::Broken("nobody looked the name up".to_owned());
        let found = found.await.ok_or_else(broken)?;
        found.map_err(|error| StreamError::Broken(error.to_string()))
    }

    fn take<E>(&self, pair: &str, found: Result<Vec<SocketAddr>, E>) -> Result<Vec<SocketAddr>, E> {
        let mut known = self.known();
        known.under_way.remove(pair);
        let mut found = found?;
        found.truncate(ADDRESSES_MAX);
        if known.last.len() >= NAMES_MAX && !known.last.contains_key(pair) {
            known.last.clear();
        }
        known.last.insert(pair.to_owned(), found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, net::UdpSocket, path::Path};

    fn names(hosts: &Path, resolv_conf: &Path) -> Names {
        Names::new(Resolver::with_files(hosts, resolv_conf))
    }

    #[test]
    fn a_name_is_looked_up_anew_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        let names = names(&hosts, &dir.path().join("none"));
        let resolve = || smol::block_on(names.resolve("manager.test:7"));
        assert!(resolve().is_err());
        fs::write(&hosts, "10.0.0.1 manager.test\n").unwrap();
        assert_eq!(resolve().unwrap(), ["10.0.0.1:7".parse().unwrap()]);
        fs::write(&hosts, "10.0.0.2 manager.test\n").unwrap();
        assert_eq!(resolve().unwrap(), ["10.0.0.2:7".parse().unwrap()]);
        // What a name meant last is better than nothing.
        fs::write(&hosts, "").unwrap();
        assert_eq!(resolve().unwrap(), ["10.0.0.2:7".parse().unwrap()]);
        assert!(names.known().under_way.is_empty());
    }

    #[test]
    fn one_question_at_a_time_waits_for_name_servers_that_are_silent() {
        let dir = tempfile::tempdir().unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let resolv_conf = dir.path().join("resolv.conf");
        fs::write(&resolv_conf, "nameserver 127.0.0.1\n").unwrap();
        let resolver = Resolver::with_files(&dir.path().join("none"), &resolv_conf).at_port(port);
        let names = Names::new(resolver);
        let address = "10.0.0.1:7".parse().unwrap();
        names.known().last.insert("manager.test:7".to_owned(), vec![address]);
        for _ in 0..2 {
            assert_eq!(smol::block_on(names.resolve("manager.test:7")).unwrap(), [address]);
        }
        assert_eq!(names.known().under_way.len(), 1);
    }
}
