use super::*;
use crate::util::dns::config::{Config, hosts_entries};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
    serialize::binary::{BinDecodable as _, BinEncodable as _},
};
use proptest::prelude::*;
use smol::net::{TcpListener, UdpSocket};

fn answer(bytes: &[u8], tcp: bool) -> Vec<u8> {
    let query = Message::from_bytes(bytes).unwrap();
    let question = query.queries[0].clone();
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.add_query(question.clone());
    let name = question.name().clone();
    let v4 = |last| RData::A(Ipv4Addr::new(192, 0, 2, last).into());
    match (name.to_string().as_str(), question.query_type()) {
        ("web.lan.", RecordType::A) => {
            answer.add_answer(Record::from_rdata(name, 5, v4(1)));
        }
        ("web.lan.", RecordType::AAAA) => {
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
            answer.add_answer(Record::from_rdata(name, 5, RData::AAAA(v6.into())));
        }
        ("alias.example.", RecordType::A) => {
            let target = Name::from_ascii("real.example.").unwrap();
            let alias = RData::CNAME(CNAME(target.clone()));
            answer.add_answer(Record::from_rdata(name, 5, alias));
            answer.add_answer(Record::from_rdata(target, 5, v4(2)));
            let unasked = Name::from_ascii("other.example.").unwrap();
            answer.add_answer(Record::from_rdata(unasked, 5, v4(9)));
        }
        ("large.example.", RecordType::A) if tcp => {
            answer.add_answer(Record::from_rdata(name, 5, v4(3)));
        }
        ("large.example.", RecordType::A) => answer.metadata.truncation = true,
        ("broken.example.", _) => answer.metadata.response_code = ResponseCode::ServFail,
        ("large.example." | "alias.example.", _) => {}
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.to_bytes().unwrap()
}

/// A resolver whose one name server answers from [`answer`].
fn resolver() -> (Resolver, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    let resolv_conf = folder.path().join("resolv.conf");
    std::fs::write(&hosts, "::1 known\n10.0.0.1 known other # 10.0.0.2 known\n").unwrap();
    let options = "options timeout:1 attempts:1";
    std::fs::write(&resolv_conf, format!("nameserver 127.0.0.1\nsearch lan\n{options}\n")).unwrap();
    let (udp, tcp) = smol::block_on(async {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (UdpSocket::bind(tcp.local_addr().unwrap()).await.unwrap(), tcp)
    });
    let port = tcp.local_addr().unwrap().port();
    smol::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = udp.recv_from(&mut buffer).await {
            // First an answer to another question, which must be passed over.
            let mut forged = answer(&buffer[..len], false);
            forged[0] ^= 0xff;
            udp.send_to(&forged, from).await.unwrap();
            udp.send_to(&answer(&buffer[..len], false), from).await.unwrap();
        }
    })
    .detach();
    smol::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut len = [0; 2];
            stream.read_exact(&mut len).await.unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut query).await.unwrap();
            let bytes = answer(&query, true);
            let len = u16::try_from(bytes.len()).unwrap();
            stream.write_all(&len.to_be_bytes()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        }
    })
    .detach();
    let resolver = Resolver { port, ..Resolver::with_files(&hosts, &resolv_conf) };
    (resolver, folder)
}

fn text(found: &Result<Vec<SocketAddr>, ResolveError>) -> String {
    match found {
        Ok(addresses) => {
            let words: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            words.join(" ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn names_are_found_in_every_way() {
    let (resolver, _folder) = resolver();
    for (pair, expected) in [
        ("10.1.2.3:7", "10.1.2.3:7"),
        ("[::1]:7", "[::1]:7"),
        ("::1", "[::1]:2377"),
        ("[::1]", "[::1]:2377"),
        ("localhost:1", "127.0.0.1:1 [::1]:1"),
        ("known", "10.0.0.1:2377 [::1]:2377"),
        ("web:80", "192.0.2.1:80 [2001:db8::1]:80"),
        ("web.lan.:80", "192.0.2.1:80 [2001:db8::1]:80"),
        ("alias.example:80", "192.0.2.2:80"),
        ("large.example:80", "192.0.2.3:80"),
        ("absent.example:80", "absent.example: no such host"),
        ("host:port", "\"host:port\" is not a host name, an address, or one of them and a port"),
        ("", "\"\" is not a host name, an address, or one of them and a port"),
    ] {
        let found = smol::block_on(resolver.resolve_pair(pair, 2377));
        assert_eq!(text(&found), expected, "{pair}");
    }
    let broken = resolver.resolve_blocking("broken.example", 1);
    assert!(matches!(broken, Err(ResolveError::Unanswered { .. })), "{broken:?}");
}

#[test]
fn configuration_is_read_as_libc_does() {
    let text = "; comment\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\nnameserver ::1\n\
                search a.b. c\noptions ndots:2 timeout:99 rotate attempts:x\n";
    let config = Config::parse(text, 53);
    assert_eq!(config.servers, ["10.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    assert_eq!((config.ndots, config.attempts), (2, 2));
    assert_eq!(config.timeout, Duration::from_secs(10));
    assert_eq!(config.candidates("x.y"), ["x.y.a.b.", "x.y.c.", "x.y."]);
    assert_eq!(config.candidates("x.y.z"), ["x.y.z.", "x.y.z.a.b.", "x.y.z.c."]);
    assert_eq!(config.candidates("x."), ["x."]);
    assert_eq!(Config::parse("", 53).servers, ["127.0.0.1:53".parse().unwrap()]);
}

proptest! {
    #[test]
    fn no_file_panics(text in "(nameserver |search |options |[a-z0-9:.# \n]){0,60}") {
        let _config = Config::parse(&text, 53).candidates("x");
        let _entries = hosts_entries(&text, "x");
    }
}
