//! Questions to name servers, and what their answers say.

use super::{ResolveError, config::Config};
use crate::util::{address::any_like, deadline::within};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
    serialize::binary::{BinDecodable as _, BinEncodable as _},
};
use smol::net::{TcpStream, UdpSocket};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

/// The longest answer over UDP without EDNS is 512 bytes; servers that send more are heard.
const UDP_LEN_MAX: usize = 4_096;

/// Aliases of aliases that are followed, as most resolvers do.
const ALIASES_MAX: usize = 16;

/// What a name server said of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Addresses(Vec<IpAddr>),
    /// The name does not exist, or has no such address.
    Nothing,
}

/// Asks for every candidate name until one has an address.
pub(super) async fn search(config: &Config, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let mut failure = None;
    for candidate in config.candidates(host) {
        // A search domain can make a name too long: then it is no candidate.
        let Ok(name) = Name::from_utf8(&candidate) else { continue };
        match ask_servers(config, &name).await {
            Ok(Answer::Addresses(addresses)) => return Ok(addresses),
            Ok(Answer::Nothing) => {}
            Err(error) => failure = Some(error.to_string()),
        }
    }
    let host = host.to_owned();
    Err(match failure {
        Some(error) => ResolveError::Unanswered { host, error },
        None => ResolveError::NotFound(host),
    })
}

async fn ask_servers(config: &Config, name: &Name) -> io::Result<Answer> {
    let mut failure = io::Error::other("none is configured");
    for _attempt in 0..config.attempts {
        for server in &config.servers {
            let ask = |kind| ask_in_time(config, *server, name, kind);
            let both = futures_lite::future::zip(ask(RecordType::A), ask(RecordType::AAAA));
            match both.await {
                (Ok(Answer::Addresses(mut v4)), v6) => {
                    if let Ok(Answer::Addresses(v6)) = v6 {
                        v4.extend(v6);
                    }
                    return Ok(Answer::Addresses(v4));
                }
                (_, Ok(Answer::Addresses(v6))) => return Ok(Answer::Addresses(v6)),
                (Ok(Answer::Nothing), Ok(Answer::Nothing)) => return Ok(Answer::Nothing),
                (Err(error), _) | (_, Err(error)) => failure = error,
            }
        }
    }
    Err(failure)
}

async fn ask_in_time(
    config: &Config,
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
) -> io::Result<Answer> {
    within(config.timeout, ask(server, name, kind)).await.unwrap_or_else(|| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{server} does not answer")))
    })
}

async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> io::Result<Answer> {
    let mut query = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    let _query = query.add_query(Query::query(name.clone(), kind));
    let bytes = query.to_bytes().map_err(io::Error::other)?;
    let mut answer = ask_udp(server, &query, &bytes).await?;
    if answer.metadata.truncation {
        answer = ask_tcp(server, &query, &bytes).await?;
    }
    match answer.metadata.response_code {
        ResponseCode::NoError => Ok(addresses(&answer, name)),
        ResponseCode::NXDomain => Ok(Answer::Nothing),
        code => Err(io::Error::other(format!("{server} says: {code}"))),
    }
}

async fn ask_udp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    // A fresh port each time: with the random id, what a forger has to guess.
    let socket = UdpSocket::bind(any_like(server)).await?;
    socket.connect(server).await?;
    let _sent = socket.send(bytes).await?;
    let mut buffer = vec![0; UDP_LEN_MAX];
    loop {
        let len = socket.recv(&mut buffer).await?;
        // What does not fit was not meant for this question: wait on.
        if let Ok(answer) = Message::from_bytes(&buffer[..len])
            && fits(&answer, query)
        {
            return Ok(answer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(bytes).await?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let mut buffer = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_bytes(&buffer).map_err(io::Error::other)?;
    if fits(&answer, query) { Ok(answer) } else { Err(io::Error::other("an unasked answer")) }
}

pub(super) fn fits(answer: &Message, query: &Message) -> bool {
    answer.metadata.id == query.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == query.queries
}

/// Returns the addresses of `name` and of what it is an alias of.
pub(super) fn addresses(answer: &Message, name: &Name) -> Answer {
    let mut names = BTreeSet::from([name.to_lowercase()]);
    for _alias in 0..ALIASES_MAX {
        let before = names.len();
        for record in &answer.answers {
            if let RData::CNAME(target) = &record.data
                && names.contains(&record.name.to_lowercase())
            {
                let _new = names.insert(target.0.to_lowercase());
            }
        }
        if names.len() == before {
            break;
        }
    }
    let of_name = answer.answers.iter().filter(|r| names.contains(&r.name.to_lowercase()));
    let found: Vec<IpAddr> = of_name
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(address.0.into()),
            RData::AAAA(address) => Some(address.0.into()),
            _ => None,
        })
        .collect();
    if found.is_empty() { Answer::Nothing } else { Answer::Addresses(found) }
}
