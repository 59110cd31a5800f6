//! Names to addresses, by a stub resolver of our own.
//!
//! Reads `/etc/hosts` and `/etc/resolv.conf` and asks the name servers there, A and AAAA side by
//! side, over UDP and over TCP where an answer was cut. The system's resolver is never called: in
//! a static binary it would load modules of whatever libc the machine has.

mod config;
#[cfg(test)]
mod fuzz;
mod query;

use super::{address::without_brackets, deadline::within};
use config::{Config, hosts_entries};
use std::{
    fs, io,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest of the two files that is read: hosts files that block advertisements reach 5 MB.
const FILE_LEN_MAX: u64 = 8 * 1024 * 1024;

/// How long a name may take, all servers, attempts and search domains together.
const LIMIT: Duration = Duration::from_secs(20);

/// How many addresses of a name are returned.
const ADDRESSES_MAX: usize = 16;

/// A name has no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It can be no name, or no port.
    #[error("{0:?} is not a host name, an address, or one of them and a port")]
    Invalid(String),
    /// The name servers know no such name, or no address of it.
    #[error("{0}: no such host")]
    NotFound(String),
    /// No name server gave a usable answer.
    #[error("{host}: no name server answers ({error})")]
    Unanswered {
        /// The name.
        host: String,
        /// What the last one did.
        error: String,
    },
    /// It took too long.
    #[error("{host}: no answer within {limit:?}")]
    Timeout {
        /// The name.
        host: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The configuration cannot be read.
    #[error("cannot read {path}: {error}")]
    Configuration {
        /// Which file.
        path: String,
        /// Why.
        error: String,
    },
}

/// A stub resolver. Reads its files anew for each name, since DHCP clients rewrite them.
#[derive(Debug, Clone)]
pub struct Resolver {
    hosts: PathBuf,
    resolv_conf: PathBuf,
    /// Where name servers listen; 53 but in tests.
    port: u16,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::system()
    }
}

impl Resolver {
    /// Returns the resolver of this machine.
    #[must_use]
    pub fn system() -> Self {
        Self::with_files(Path::new("/etc/hosts"), Path::new("/etc/resolv.conf"))
    }

    /// Returns a resolver that reads other files.
    #[must_use]
    pub fn with_files(hosts: &Path, resolv_conf: &Path) -> Self {
        Self { hosts: hosts.to_owned(), resolv_conf: resolv_conf.to_owned(), port: 53 }
    }

    /// Returns a resolver whose name servers listen elsewhere.
    #[cfg(test)]
    pub(crate) fn at_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Returns the addresses of `host`, IPv4 first, each with `port`. Literal addresses and
    /// `localhost` ask nobody.
    ///
    /// # Errors
    ///
    /// The name has no address, or nobody says in time.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut addresses = match literal(host) {
            Some(addresses) => addresses,
            None => self.look_up(host).await?,
        };
        addresses.truncate(ADDRESSES_MAX);
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    /// As [`Resolver::resolve`], of `host:port`, `host`, `[v6]:port` or a bare address.
    ///
    /// # Errors
    ///
    /// As [`Resolver::resolve`], and where the text is none of these.
    pub async fn resolve_pair(
        &self,
        pair: &str,
        default_port: u16,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let (host, port) = split(pair, default_port)?;
        self.resolve(host, port).await
    }

    /// As [`Resolver::resolve`], for threads that may wait.
    ///
    /// # Errors
    ///
    /// As [`Resolver::resolve`].
    pub fn resolve_blocking(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        smol::block_on(self.resolve(host, port))
    }

    async fn look_up(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let possible = !host.is_empty()
            && !host.bytes().any(|byte| byte.is_ascii_whitespace())
            && hickory_proto::rr::Name::from_utf8(host).is_ok();
        if !possible {
            return Err(ResolveError::Invalid(host.to_owned()));
        }
        let known = hosts_entries(&read(&self.hosts)?, host);
        if !known.is_empty() {
            return Ok(known);
        }
        let config = Config::parse(&read(&self.resolv_conf)?, self.port);
        let late = || Err(ResolveError::Timeout { host: host.to_owned(), limit: LIMIT });
        within(LIMIT, query::search(&config, host)).await.unwrap_or_else(late)
    }
}

/// Returns the addresses that need no question.
fn literal(host: &str) -> Option<Vec<IpAddr>> {
    if let Ok(address) = without_brackets(host).parse() {
        return Some(vec![address]);
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let local = name == "localhost" || name.ends_with(".localhost");
    local.then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

/// Takes `host:port` apart.
fn split(pair: &str, default_port: u16) -> Result<(&str, u16), ResolveError> {
    let invalid = || ResolveError::Invalid(pair.to_owned());
    if pair.parse::<IpAddr>().is_ok() {
        return Ok((pair, default_port));
    }
    match pair.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            Ok((host, port.parse().map_err(|_| invalid())?))
        }
        _ => Ok((pair, default_port)),
    }
}

/// Returns a file's text; empty where there is none, as libc does.
fn read(path: &Path) -> Result<String, ResolveError> {
    let failed = |error: io::Error| ResolveError::Configuration {
        path: path.display().to_string(),
        error: error.to_string(),
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    let _len = file.take(FILE_LEN_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
