//! Host names to addresses, without the C library: a static binary cannot load the name service
//! modules that `getaddrinfo` is made of.
//!
//! Reads `/etc/hosts` and `/etc/resolv.conf` anew for each name, so that a changed network needs
//! no restart, and asks the name servers listed there, over UDP and, where an answer is cut short,
//! TCP. Keeps nothing; the name servers have caches.

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
    serialize::binary::{BinDecodable as _, BinEncodable as _},
};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

/// The time one name may take in all: the file's own limits multiply to more (servers, attempts,
/// search domains), and whoever waits for a connection gives up long before.
const TOTAL_TIME_MAX: Duration = Duration::from_secs(15);

/// What of a configuration file is read. An `/etc/hosts` that blocks advertisers has megabytes.
const FILE_LEN_MAX: u64 = 16 << 20;

/// What an answer by UDP may measure; what is longer is cut by the server and asked for by TCP.
const UDP_LEN_MAX: usize = 4096;

/// How many addresses a name gives at most: nobody tries more of them.
const ADDRESSES_MAX: usize = 32;

/// How many answers to somebody else's question are skipped before a server is given up.
const STRAY_ANSWERS_MAX: usize = 16;

/// The C library's limits of `/etc/resolv.conf`.
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 32;
const NDOTS_MAX: usize = 15;
const TIMEOUT_MAX: u64 = 30;
const ATTEMPTS_MAX: usize = 5;

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// What `/etc/resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Config {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: usize,
}

/// Returns the addresses of `host`, each with `port`. Literal addresses and `localhost` are
/// answered at once.
///
/// # Errors
///
/// There is no such name, or no name server answers.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(addresses) = without_asking(host) {
        return Ok(with_port(addresses, port));
    }
    let host = host.to_owned();
    smol::unblock(move || resolve_blocking(&host, port)).await
}

/// Does what [`resolve`] does, blocking the thread for at most fifteen seconds.
///
/// # Errors
///
/// There is no such name, or no name server answers.
pub fn resolve_blocking(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(addresses) = without_asking(host) {
        return Ok(with_port(addresses, port));
    }
    let known = find_in_hosts(&read("/etc/hosts")?, host);
    if !known.is_empty() {
        return Ok(with_port(known, port));
    }
    let config = parse_config(&read("/etc/resolv.conf")?);
    let addresses = ask(&config, host, Instant::now() + TOTAL_TIME_MAX)?;
    Ok(with_port(addresses, port))
}

fn with_port(addresses: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    let addresses = addresses.into_iter().take(ADDRESSES_MAX);
    addresses.map(|address| SocketAddr::new(address, port)).collect()
}

/// Answers what needs no file: addresses, also in brackets, and the names of loopback.
fn without_asking(host: &str) -> Option<Vec<IpAddr>> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Some(vec![address]);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let is_loopback = name == "localhost" || name.ends_with(".localhost");
    is_loopback.then(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
}

/// Reads a configuration file; one that is missing is empty.
fn read(path: &str) -> io::Result<String> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        Ok(file) => file,
    };
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn find_in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let host = host.trim_end_matches('.');
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

fn parse_config(text: &str) -> Config {
    let mut config = Config {
        servers: Vec::new(),
        search: Vec::new(),
        ndots: 1,
        timeout: Duration::from_secs(5),
        attempts: 2,
    };
    for line in text.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().and_then(parse_server)),
            Some("search") => {
                config.search = words.take(SEARCH_MAX).map(str::to_owned).collect();
            }
            Some("domain") => config.search = words.take(1).map(str::to_owned).collect(),
            Some("options") => words.for_each(|option| set_option(&mut config, option)),
            _ => {}
        }
    }
    config.servers.truncate(SERVERS_MAX);
    if config.servers.is_empty() {
        // As the C library does.
        config.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT)));
    }
    config
}

fn set_option(config: &mut Config, option: &str) {
    let Some((name, value)) = option.split_once(':') else { return };
    let Ok(value) = value.parse::<u64>() else { return };
    let count = usize::try_from(value).unwrap_or(usize::MAX);
    match name {
        "ndots" => config.ndots = count.min(NDOTS_MAX),
        "timeout" => config.timeout = Duration::from_secs(value.clamp(1, TIMEOUT_MAX)),
        "attempts" => config.attempts = count.clamp(1, ATTEMPTS_MAX),
        _ => {}
    }
}

/// Parses a server's address, with a scope where it is link-local: `fe80::1%eth0`.
fn parse_server(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, DNS_PORT));
    }
    let (address, scope) = text.split_once('%')?;
    let index = scope.parse().ok().or_else(|| {
        let path = format!("/sys/class/net/{scope}/ifindex");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    })?;
    Some(SocketAddrV6::new(address.parse().ok()?, DNS_PORT, 0, index).into())
}

/// Returns the full names to try, in order: a name with enough dots first as it is, any other
/// first within the search domains.
fn candidates(config: &Config, host: &str) -> Vec<String> {
    if host.ends_with('.') {
        return vec![host.to_owned()];
    }
    let own = format!("{host}.");
    let searched = config.search.iter().filter(|domain| *domain != ".");
    let mut names: Vec<String> =
        searched.map(|domain| format!("{host}.{}.", domain.trim_end_matches('.'))).collect();
    let is_full = host.matches('.').count() >= config.ndots;
    names.insert(if is_full { 0 } else { names.len() }, own);
    names
}

fn ask(config: &Config, host: &str, deadline: Instant) -> io::Result<Vec<IpAddr>> {
    let mut failure = None;
    for candidate in candidates(config, host) {
        let name = Name::from_utf8(&candidate).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name: {error}"))
        })?;
        let mut addresses = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            match ask_servers(config, &name, kind, deadline) {
                Ok(found) => addresses.extend(found),
                Err(error) => failure = Some(error),
            }
        }
        if !addresses.is_empty() {
            return Ok(addresses);
        }
    }
    // A server that failed may have known the name: that is not the same as no such name.
    Err(failure.unwrap_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("there is no host named {host}"))
    }))
}

fn ask_servers(
    config: &Config,
    name: &Name,
    kind: RecordType,
    deadline: Instant,
) -> io::Result<Vec<IpAddr>> {
    let mut failure = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..config.attempts {
        for server in &config.servers {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failure);
            }
            let limit = Instant::now() + left.min(config.timeout);
            match ask_server(*server, name, kind, limit) {
                Ok(addresses) => return Ok(addresses),
                Err(error) => {
                    let text = format!("name server {server}, asked for {name}: {error}");
                    failure = io::Error::new(error.kind(), text);
                }
            }
        }
    }
    Err(failure)
}

/// Asks one server; no such name is no addresses.
fn ask_server(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
    limit: Instant,
) -> io::Result<Vec<IpAddr>> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|error| io::Error::other(error.to_string()))?;
    let mut question = Message::new(u16::from_be_bytes(id), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), kind));
    let bytes = question.to_bytes().map_err(io::Error::other)?;
    let mut answer = ask_udp(server, &question, &bytes, limit)?;
    if answer.metadata.truncation {
        answer = ask_tcp(server, &question, &bytes, limit)?;
    }
    match answer.metadata.response_code {
        ResponseCode::NoError => Ok(addresses_of(&answer, kind)),
        ResponseCode::NXDomain => Ok(Vec::new()),
        code => Err(io::Error::other(format!("it answers {code}"))),
    }
}

/// Returns the addresses of an answer, those behind its aliases included.
fn addresses_of(answer: &Message, kind: RecordType) -> Vec<IpAddr> {
    let addresses = answer.answers.iter().filter_map(|record| match (&record.data, kind) {
        (RData::A(address), RecordType::A) => Some(IpAddr::V4(address.0)),
        (RData::AAAA(address), RecordType::AAAA) => Some(IpAddr::V6(address.0)),
        _ => None,
    });
    addresses.take(ADDRESSES_MAX).collect()
}

/// Tells whether `answer` is one to `question`.
fn is_answer(question: &Message, answer: &Message) -> bool {
    answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == question.queries
}

/// Returns the time left, or an error where there is none.
fn time_left(limit: Instant) -> io::Result<Duration> {
    let left = limit.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn ask_udp(
    server: SocketAddr,
    question: &Message,
    bytes: &[u8],
    limit: Instant,
) -> io::Result<Message> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Connected: the kernel drops what others send, and says so where nobody listens.
    socket.connect(server)?;
    socket.send(bytes)?;
    let mut buffer = [0; UDP_LEN_MAX];
    for _ in 0..STRAY_ANSWERS_MAX {
        socket.set_read_timeout(Some(time_left(limit)?))?;
        let len = socket.recv(&mut buffer).map_err(to_timeout)?;
        match Message::from_bytes(&buffer[..len]) {
            Ok(answer) if is_answer(question, &answer) => return Ok(answer),
            _ => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it answers other questions than ours"))
}

fn ask_tcp(
    server: SocketAddr,
    question: &Message,
    bytes: &[u8],
    limit: Instant,
) -> io::Result<Message> {
    let mut stream = TcpStream::connect_timeout(&server, time_left(limit)?)?;
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.set_write_timeout(Some(time_left(limit)?))?;
    stream.write_all(&[&len.to_be_bytes(), bytes].concat())?;
    let mut len = [0; 2];
    read_exact(&mut stream, &mut len, limit)?;
    let mut buffer = vec![0; usize::from(u16::from_be_bytes(len))];
    read_exact(&mut stream, &mut buffer, limit)?;
    let answer = Message::from_bytes(&buffer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    if is_answer(question, &answer) {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it answers another question than ours"))
    }
}

/// Fills `buffer` before `limit`, however slowly the other side drips.
fn read_exact(stream: &mut TcpStream, buffer: &mut [u8], limit: Instant) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        stream.set_read_timeout(Some(time_left(limit)?))?;
        match stream.read(&mut buffer[filled..]).map_err(to_timeout)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => filled += len,
        }
    }
    Ok(())
}

/// A read that timed out says "would block", which is no use to a reader.
fn to_timeout(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
