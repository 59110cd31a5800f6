//! Against a name server on loopback that says what each test wants.

use super::*;
use hickory_proto::rr::{Record, rdata::CNAME};
use std::{net::TcpListener, thread};

fn name(text: &str) -> Name {
    Name::from_utf8(text).expect("a name")
}

/// Answers like a small zone: `web.lan.` has two addresses behind an alias, `big.lan.` only by
/// TCP, `sick.lan.` fails, and nothing else exists.
fn answer(bytes: &[u8], is_tcp: bool) -> Vec<u8> {
    let question = Message::from_bytes(bytes).expect("a question");
    assert!(question.metadata.recursion_desired);
    let query = question.queries[0].clone();
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.add_query(query.clone());
    let v4 = |owner: &str, last: u8| {
        Record::from_rdata(name(owner), 5, RData::A(Ipv4Addr::new(192, 0, 2, last).into()))
    };
    match (query.name().to_string().as_str(), query.query_type(), is_tcp) {
        ("web.lan.", RecordType::A, _) => {
            let alias = RData::CNAME(CNAME(name("one.lan.")));
            answer.add_answer(Record::from_rdata(name("web.lan."), 5, alias));
            answer.add_answer(v4("one.lan.", 1));
        }
        ("web.lan.", _, _) => {
            let address = RData::AAAA(Ipv6Addr::LOCALHOST.into());
            answer.add_answer(Record::from_rdata(name("web.lan."), 5, address));
        }
        ("big.lan.", RecordType::A, true) => {
            answer.add_answer(v4("big.lan.", 2));
        }
        ("big.lan.", _, false) => answer.metadata.truncation = true,
        ("big.lan.", _, true) => {}
        ("sick.lan.", _, _) => answer.metadata.response_code = ResponseCode::ServFail,
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer.to_bytes().expect("encodes")
}

/// Starts the server, on a port where both protocols are free. It ends with the process.
fn serve() -> SocketAddr {
    let (udp, tcp) = (0..100)
        .find_map(|_| {
            let udp = UdpSocket::bind("127.0.0.1:0").ok()?;
            let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
            Some((udp, tcp))
        })
        .expect("a free port");
    let address = udp.local_addr().expect("bound");
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = udp.recv_from(&mut buffer) {
            // Somebody else's answer comes first and must be skipped.
            let mut forged = answer(&buffer[..len], false);
            forged[0] ^= 0xff;
            udp.send_to(&forged, from).expect("sends");
            udp.send_to(&answer(&buffer[..len], false), from).expect("sends");
        }
    });
    thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            let mut len = [0; 2];
            stream.read_exact(&mut len).expect("reads");
            let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut question).expect("reads");
            let answer = answer(&question, true);
            let len = u16::try_from(answer.len()).expect("short");
            stream.write_all(&[&len.to_be_bytes(), &answer[..]].concat()).expect("writes");
        }
    });
    address
}

fn config(servers: Vec<SocketAddr>) -> Config {
    Config { servers, timeout: Duration::from_secs(5), ..parse_config("search lan\n") }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[test]
fn names_are_asked_for_with_search_aliases_and_both_families() {
    let config = config(vec![serve()]);
    let expected: Vec<IpAddr> =
        vec![Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::LOCALHOST.into()];
    for host in ["web", "web.lan", "web.lan."] {
        assert_eq!(ask(&config, host, soon()).expect("found"), expected, "{host}");
    }
}

#[test]
fn a_long_answer_is_fetched_by_tcp() {
    let found = ask(&config(vec![serve()]), "big", soon()).expect("found");
    assert_eq!(found, [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))]);
}

#[test]
fn no_such_name_differs_from_a_server_that_fails() {
    let config = config(vec![serve()]);
    let error = ask(&config, "nobody", soon()).expect_err("there is none");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert_eq!(error.to_string(), "there is no host named nobody");
    let error = ask(&config, "sick.lan.", soon()).expect_err("it fails");
    assert_ne!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn the_next_server_is_asked_where_one_is_silent_or_away() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let silent_address = silent.local_addr().expect("bound");
    let gone = UdpSocket::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound");
    let mut config = config(vec![gone, silent_address, serve()]);
    config.timeout = Duration::from_millis(50);
    assert_eq!(ask(&config, "web", soon()).expect("found").len(), 2);
    config.servers = vec![silent_address];
    let error = ask(&config, "web.lan.", soon()).expect_err("nobody answers");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn literals_and_localhost_ask_nobody() {
    let found = resolve_blocking("[::1]", 7).expect("literal");
    assert_eq!(found, ["[::1]:7".parse::<SocketAddr>().expect("valid")]);
    assert_eq!(resolve_blocking("192.0.2.7", 7).expect("literal").len(), 1);
    let found = smol::block_on(resolve("LocalHost.", 7)).expect("known");
    assert_eq!(found[0], "127.0.0.1:7".parse::<SocketAddr>().expect("valid"));
}

#[test]
fn hosts_and_resolv_conf_are_read_as_the_c_library_does() {
    let hosts = "192.0.2.1 one one.lan # two\n::1\tONE\nbad one\n192.0.2.2 two\n";
    assert_eq!(find_in_hosts(hosts, "one.").len(), 2);
    assert_eq!(find_in_hosts(hosts, "two"), [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))]);
    let config = parse_config(
        "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver ::1\nnameserver 192.0.2.3\n\
         domain x\nsearch a. b\noptions ndots:99 timeout:0 attempts:1 rotate\n; nameserver z\n",
    );
    assert_eq!(config.servers.len(), SERVERS_MAX);
    assert_eq!((config.ndots, config.attempts), (NDOTS_MAX, 1));
    assert_eq!(config.timeout, Duration::from_secs(1));
    assert_eq!(candidates(&config, "w.x"), ["w.x.a.", "w.x.b.", "w.x."]);
    assert_eq!(candidates(&Config { ndots: 1, ..config }, "w.x"), ["w.x.", "w.x.a.", "w.x.b."]);
    assert_eq!(parse_config("").servers[0].to_string(), "127.0.0.1:53");
}
