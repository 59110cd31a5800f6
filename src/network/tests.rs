//! Against the real kernel, each test in a network namespace of its own. Needs root; elsewhere
//! the tests say so and pass.

use super::*;
use crate::types::{Endpoint, NetworkMode, PortConfig, PortProtocol, PublishMode, TaskSpec};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::mpsc,
    time::Instant,
};

const WAIT: Duration = Duration::from_secs(5);

/// How long something is waited for that is tried again, or that is not to come.
const POLL: Duration = Duration::from_millis(300);

/// A machine: a namespace with loopback, folders, and a network in it.
struct Machine {
    dir: tempfile::TempDir,
    id: NodeId,
    network: Network,
}

impl Machine {
    fn open(&self) -> Network {
        open(&self.id, self.dir.path())
    }

    fn netns(&self, task: &Task) -> PathBuf {
        self.dir.path().join("run/netns").join(task.id.as_str())
    }

    /// A namespace beside the machine, 192.0.2.2, cabled to 192.0.2.1 on the machine.
    fn outside(&self) -> PathBuf {
        self.cabled("outside", "up", "192.0.2")
    }

    /// A namespace, cabled to the machine, each with an address of the block.
    fn cabled(&self, name: &str, cable: &str, block: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        netns::create(&path).expect("a namespace");
        let shown = path.to_str().expect("a plain path");
        run(&format!("ip link add {cable}0 type veth peer name {cable}1"));
        run(&format!("ip addr add {block}.1/24 dev {cable}0"));
        run(&format!("ip link set {cable}0 up"));
        run(&format!("ip link set {cable}1 netns {shown}"));
        inside(&path, || {
            run("ip link set lo up");
            run(&format!("ip addr add {block}.2/24 dev {cable}1"));
            run(&format!("ip link set {cable}1 up"));
        });
        path
    }
}

impl Drop for Machine {
    /// Also on failure: namespaces are mounted, and a temporary folder with mounts stays.
    fn drop(&mut self) {
        smol::block_on(self.network.teardown());
        for name in ["outside", "field"] {
            netns::delete(&self.dir.path().join(name)).expect("unmounts");
        }
    }
}

fn open(id: &NodeId, dir: &Path) -> Network {
    let config =
        NetworkConfig { id: id.clone(), data_dir: dir.join("data"), run_dir: dir.join("run") };
    Network::new(config).expect("a network")
}

/// Runs `test` on a machine of its own.
fn on_machine(test: impl FnOnce(&Machine) + Send) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let home = dir.path().join("home");
    netns::create(&home).expect("a namespace");
    let path = home.clone();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        inside(&path, move || {
            run("ip link set lo up");
            let id = NodeId::from_bits(u128::from(rand::random::<u64>()));
            let network = open(&id, dir.path());
            test(&Machine { dir, id, network });
        });
    }));
    netns::delete(&home).expect("unmounts");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn inside<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> T {
    netns::run_inside(path, || Ok(f())).expect("enters the namespace")
}

/// Runs a command in this thread's namespace and returns what it said.
fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn task(number: u128, mode: NetworkMode, ports: &[(PortProtocol, u16, u16)]) -> Task {
    let ports = ports.iter().map(|(protocol, published, target)| PortConfig {
        name: String::new(),
        protocol: *protocol,
        target: *target,
        published: *published,
        host_ip: None,
        mode: PublishMode::Host,
    });
    Task {
        spec: TaskSpec { network: mode, ..TaskSpec::default() }.into(),
        endpoint: Endpoint { ports: ports.collect(), ..Endpoint::default() },
        ..Task::sample(number)
    }
}

fn prepare(network: &Network, task: &Task) -> NetworkSetup {
    smol::block_on(network.prepare(task)).expect("prepares")
}

fn publish(network: &Network, task: &Task) -> Result<Vec<PortStatus>, Failure> {
    smol::block_on(network.publish(task))
}

/// Publishes ports that were let go of just now. A command that another test starts has all sockets
/// until it is a program of its own.
fn publish_again(network: &Network, task: &Task) {
    let start = Instant::now();
    while let Err(failure) = publish(network, task) {
        assert!(start.elapsed() < WAIT, "{failure:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Answers one connection to `port` inside, with the address it came from.
fn serve_tcp(path: &Path, port: u16) {
    serve_at(path, &format!("0.0.0.0:{port}"));
}

/// Answers one connection to an address inside, with the address it came from.
fn serve_at(path: &Path, address: &str) {
    let address: SocketAddr = address.parse().expect("an address");
    let (ready, is_ready) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || {
        inside(&path, move || {
            let listener = TcpListener::bind(address).expect("binds");
            ready.send(()).expect("awaited");
            let (mut stream, peer) = listener.accept().expect("accepts");
            // Before the answer, after which the caller may have the port served anew.
            drop(listener);
            write!(stream, "{}", peer.ip()).expect("writes");
        });
    });
    is_ready.recv_timeout(WAIT).expect("listens");
}

fn ask_tcp(address: &str) -> String {
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, WAIT).expect("connects");
    stream.set_read_timeout(Some(WAIT)).expect("valid");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answers");
    text
}

#[test]
fn tasks_reach_each_other_the_node_and_the_world() {
    on_machine(|machine| {
        let (one, two) = (task(1, NetworkMode::Bridge, &[]), task(2, NetworkMode::Bridge, &[]));
        let first = prepare(&machine.network, &one);
        let second = prepare(&machine.network, &two);
        assert_eq!(prepare(&machine.network, &one), first, "preparing twice is preparing once");
        assert_eq!(first.hostname, &one.id.as_str()[..12]);
        let netns = first.netns.expect("a namespace");
        let bridge = machine.gateway();
        let outside = machine.outside();
        for address in [second.address.expect("an address").to_string(), bridge] {
            inside(&netns, || run(&format!("busybox ping -c 1 -W 5 {address}")));
        }
        // The world has no route back: only a rewritten source gets an answer.
        serve_tcp(&outside, 80);
        assert_eq!(inside(&netns, || ask_tcp("192.0.2.2:80")), "192.0.2.1");
        let hosts = std::fs::read_to_string(first.hosts.expect("a file")).expect("reads");
        assert!(hosts.contains(&first.address.expect("an address").to_string()));
    });
}

impl Machine {
    /// The bridge's address.
    fn gateway(&self) -> String {
        let shown = run(&format!("ip -4 -o addr show dev {}", name::bridge(&self.id)));
        let mut words = shown.split_whitespace().skip_while(|word| *word != "inet");
        let address = words.nth(1).expect("an address");
        address.split('/').next().expect("an address").to_owned()
    }
}

#[test]
fn a_published_tcp_port_is_reached_from_everywhere() {
    on_machine(|machine| {
        let web = task(1, NetworkMode::Bridge, &[(PortProtocol::Tcp, 8080, 80)]);
        let other = task(2, NetworkMode::Bridge, &[]);
        let netns = prepare(&machine.network, &web).netns.expect("a namespace");
        let beside = prepare(&machine.network, &other).netns.expect("a namespace");
        let outside = machine.outside();
        let ports = publish(&machine.network, &web).expect("publishes");
        assert_eq!(ports[0].port.published, 8080);
        assert_eq!(publish(&machine.network, &web).as_ref(), Ok(&ports));
        assert_eq!(machine.network.ports(&web.id), ports);
        serve_tcp(&netns, 80);
        assert_eq!(inside(&outside, || ask_tcp("192.0.2.1:8080")), "192.0.2.2");
        for address in ["192.0.2.1:8080", "127.0.0.1:8080"] {
            serve_tcp(&netns, 80);
            ask_tcp(address);
        }
        for namespace in [&beside, &netns] {
            serve_tcp(&netns, 80);
            assert_eq!(inside(namespace, || ask_tcp("192.0.2.1:8080")), machine.gateway());
        }
        smol::block_on(machine.network.unpublish(&web.id));
        assert!(machine.network.ports(&web.id).is_empty());
        assert!(refuses("127.0.0.1:8080"));
    });
}

#[test]
fn a_published_udp_port_is_reached_and_a_free_one_is_found() {
    on_machine(|machine| {
        let dns = task(1, NetworkMode::Bridge, &[(PortProtocol::Udp, 0, 53)]);
        let netns = prepare(&machine.network, &dns).netns.expect("a namespace");
        let published = publish(&machine.network, &dns).expect("publishes")[0].port.published;
        assert!(published > 1024);
        let server = inside(&netns, || UdpSocket::bind("0.0.0.0:53").expect("binds"));
        server.set_read_timeout(Some(WAIT)).expect("valid");
        let outside = machine.outside();
        let client = inside(&outside, || UdpSocket::bind("0.0.0.0:0").expect("binds"));
        client.set_read_timeout(Some(WAIT)).expect("valid");
        client.send_to(b"ask", ("192.0.2.1", published)).expect("sends");
        let mut buffer = [0; 8];
        let (len, from) = server.recv_from(&mut buffer).expect("receives");
        assert_eq!(&buffer[..len], b"ask");
        server.send_to(b"answer", from).expect("sends");
        let (len, from) = client.recv_from(&mut buffer).expect("receives");
        assert_eq!(
            (&buffer[..len], from.to_string()),
            (&b"answer"[..], format!("192.0.2.1:{published}"))
        );
    });
}

/// Has `client` ask at a published port, again and again, until one of the servers answers; returns
/// which. Answers to questions of before may be on their way yet.
fn ask_udp(client: &UdpSocket, servers: &[&UdpSocket], question: &[u8]) -> usize {
    let start = Instant::now();
    let mut buffer = [0; 16];
    loop {
        assert!(start.elapsed() < WAIT, "nobody answers");
        // The port may be nobody's for now.
        client.send_to(question, ("192.0.2.1", 5353)).ok();
        for (number, server) in servers.iter().enumerate() {
            if let Ok((len, from)) = server.recv_from(&mut buffer) {
                let answer = [&buffer[..len], &[u8::try_from(number).expect("few")]].concat();
                server.send_to(&answer, from).expect("sends");
            }
        }
        if let Ok((len, _)) = client.recv_from(&mut buffer)
            && let Some([number]) = buffer[..len].strip_prefix(question)
        {
            return usize::from(*number);
        }
    }
}

#[test]
fn a_udp_client_that_keeps_sending_reaches_the_next_task() {
    on_machine(|machine| {
        let ports = [(PortProtocol::Udp, 5353, 53)];
        let (old, new) =
            (task(1, NetworkMode::Bridge, &ports), task(2, NetworkMode::Bridge, &ports));
        let served = |task| {
            let netns = prepare(&machine.network, task).netns.expect("a namespace");
            let server = inside(&netns, || UdpSocket::bind("0.0.0.0:53").expect("binds"));
            server.set_read_timeout(Some(POLL)).expect("valid");
            server
        };
        let (first, second) = (served(&old), served(&new));
        let outside = machine.outside();
        let client = inside(&outside, || UdpSocket::bind("0.0.0.0:4000").expect("binds"));
        client.set_read_timeout(Some(POLL)).expect("valid");
        let servers = [&first, &second];

        // It sent before anything was published.
        client.send_to(b"early", ("192.0.2.1", 5353)).expect("sends");
        publish(&machine.network, &old).expect("publishes");
        assert_eq!(ask_udp(&client, &servers, b"old"), 0);
        smol::block_on(machine.network.unpublish(&old.id));
        // Whoever has the port now is asked.
        let own = UdpSocket::bind("0.0.0.0:5353").expect("binds");
        own.set_read_timeout(Some(POLL)).expect("valid");
        assert_eq!(ask_udp(&client, &[&first, &second, &own], b"own"), 2);
        drop(own);
        publish(&machine.network, &new).expect("publishes");
        assert_eq!(ask_udp(&client, &servers, b"new"), 1);
    });
}

/// Publishes port 80 at 8080 of one address.
fn task_at(number: u128, address: &str) -> Task {
    let mut task = task(number, NetworkMode::Bridge, &[(PortProtocol::Tcp, 8080, 80)]);
    task.endpoint.ports[0].host_ip = address.parse().ok();
    task
}

/// Tells whether nobody listens there, or soon nobody does: a process that another test starts holds on
/// to every socket of this one's until its program runs.
fn refuses(address: &str) -> bool {
    let (start, address) = (Instant::now(), address.parse().expect("an address"));
    while TcpStream::connect_timeout(&address, WAIT).is_ok() {
        if start.elapsed() > WAIT {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

#[test]
fn a_port_is_published_at_one_address_only() {
    on_machine(|machine| {
        let outside = machine.outside();
        let (far, near) = (task_at(1, "192.0.2.1"), task_at(2, "127.0.0.1"));
        let far_netns = prepare(&machine.network, &far).netns.expect("a namespace");
        let near_netns = prepare(&machine.network, &near).netns.expect("a namespace");
        publish(&machine.network, &far).expect("publishes");
        assert!(refuses("127.0.0.1:8080"));
        serve_tcp(&far_netns, 80);
        assert_eq!(inside(&outside, || ask_tcp("192.0.2.1:8080")), "192.0.2.2");
        publish(&machine.network, &near).expect("publishes");
        serve_tcp(&near_netns, 80);
        ask_tcp("127.0.0.1:8080");
        serve_tcp(&far_netns, 80);
        ask_tcp("192.0.2.1:8080");

        let every = task(3, NetworkMode::Bridge, &[(PortProtocol::Tcp, 8080, 80)]);
        prepare(&machine.network, &every);
        let refused = publish(&machine.network, &every).expect_err("it is held");
        assert_eq!(refused.message, "port 8080/tcp is already in use on this node");
        let again = task_at(4, "192.0.2.1");
        prepare(&machine.network, &again);
        let refused = publish(&machine.network, &again).expect_err("it is held");
        assert_eq!(refused.message, "port 192.0.2.1:8080/tcp is already in use on this node");
        let strange = task_at(5, "198.51.100.1");
        prepare(&machine.network, &strange);
        let refused = publish(&machine.network, &strange).expect_err("no such address");
        assert!(refused.message.contains("198.51.100.1") && !refused.temporary, "{refused:?}");
        assert!(machine.network.ports(&strange.id).is_empty());

        let restarted = machine.open();
        smol::block_on(restarted.retain(&BTreeSet::from([far.id.clone(), near.id.clone()])));
        serve_tcp(&far_netns, 80);
        assert_eq!(inside(&outside, || ask_tcp("192.0.2.1:8080")), "192.0.2.2");
    });
}

/// Tells whether something listens at an address, as seen from this thread's namespace.
fn is_open(address: &str) -> bool {
    TcpStream::connect_timeout(&address.parse().expect("an address"), WAIT).is_ok()
}

/// Tells whether nothing comes back from an address, as seen from this thread's namespace.
fn is_closed(address: &str) -> bool {
    TcpStream::connect_timeout(&address.parse().expect("an address"), POLL).is_err()
}

#[test]
fn containers_are_closed_to_other_machines() {
    on_machine(|machine| {
        let outside = machine.outside();
        let web = task_at(1, "127.0.0.1");
        let setup = prepare(&machine.network, &web);
        let netns = setup.netns.expect("a namespace");
        let near = format!("{}:80", setup.address.expect("an address"));
        let gateway = machine.gateway();
        publish(&machine.network, &web).expect("publishes");
        let _listener = inside(&netns, || TcpListener::bind("0.0.0.0:80").expect("binds"));
        let _own = TcpListener::bind("0.0.0.0:9000").expect("binds");
        let own_near = format!("{gateway}:9000");

        inside(&outside, || {
            run(&format!("ip route add {gateway}/32 via 192.0.2.1"));
            run(&format!("ip route add {near} via 192.0.2.1", near = near.trim_end_matches(":80")));
            assert!(is_closed(&near), "the task's port is not published at the node's address");
            assert!(is_closed(&own_near), "the bridge's address is the node's own");
            assert!(is_open("192.0.2.1:9000"));
        });
        for address in [near.as_str(), "127.0.0.1:8080", &own_near] {
            assert!(is_open(address), "the node itself reaches {address}");
        }
        let beside = prepare(&machine.network, &task(2, NetworkMode::Bridge, &[]));
        inside(&beside.netns.expect("a namespace"), || {
            for address in [near.as_str(), own_near.as_str(), "192.0.2.1:9000"] {
                assert!(is_open(address), "its neighbour reaches {address}");
            }
        });
    });
}

#[test]
fn a_machine_between_two_networks_does_not_become_a_router() {
    on_machine(|machine| {
        const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
        let (outside, field) = (machine.outside(), machine.cabled("field", "fd", "198.51.100"));
        inside(&outside, || run("ip route add default via 192.0.2.1"));
        inside(&field, || run("ip route add default via 198.51.100.1"));
        let _listener = inside(&field, || TcpListener::bind("0.0.0.0:80").expect("binds"));
        let reaches = || inside(&outside, || is_open("198.51.100.2:80"));
        let is_kept_out = || inside(&outside, || is_closed("198.51.100.2:80"));
        assert!(is_kept_out(), "a machine does not forward by itself");
        let web = task_at(1, "192.0.2.1");
        let netns = prepare(&machine.network, &web).netns.expect("a namespace");
        publish(&machine.network, &web).expect("publishes");
        assert!(is_kept_out());
        // Containers have their way, in and out, by both networks.
        serve_tcp(&netns, 80);
        assert_eq!(inside(&field, || ask_tcp("192.0.2.1:8080")), "198.51.100.2");
        assert!(inside(&netns, || is_open("198.51.100.2:80")));
        // So has who shares an uplink.
        run("nft add table ip shared");
        run("nft add chain ip shared out { type nat hook postrouting priority 100 ; }");
        run("nft add rule ip shared out oifname fd0 masquerade");
        assert!(reaches());
        run("nft delete table ip shared");
        smol::block_on(machine.open().retain(&BTreeSet::from([web.id.clone()])));
        assert!(is_kept_out(), "after a restart as before");
        run("nft delete table ip midge_forward");
        assert!(reaches(), "what the documentation says opens it");

        std::fs::write(SWITCH, "0").expect("writes");
        smol::block_on(machine.open().retain(&BTreeSet::from([web.id.clone()])));
        assert!(is_kept_out());
        // A machine that forwards already goes on as it was.
        run("nft delete table ip midge_forward");
        smol::block_on(machine.open().retain(&BTreeSet::from([web.id.clone()])));
        assert!(reaches());
    });
}

#[test]
fn daemons_side_by_side_reach_what_the_other_publishes() {
    on_machine(|machine| {
        let _outside = machine.outside();
        let web = task_at(1, "192.0.2.1");
        let setup = prepare(&machine.network, &web);
        let near = format!("{}:80", setup.address.expect("an address"));
        publish(&machine.network, &web).expect("publishes");
        let other_dir = machine.dir.path().join("other");
        let other = open(&NodeId::from_bits(7), &other_dir);
        let caller = prepare(&other, &task(2, NetworkMode::Bridge, &[]));
        let _listener =
            inside(&setup.netns.expect("a namespace"), || TcpListener::bind("0.0.0.0:80"))
                .expect("binds");
        inside(&caller.netns.expect("a namespace"), || {
            assert!(is_open("192.0.2.1:8080"));
            assert!(is_closed(&near), "what is not published is the other daemon's own");
        });
        assert!(is_open(&near) && is_open("192.0.2.1:8080"));
        smol::block_on(other.teardown());
    });
}

#[test]
fn a_bridge_that_was_made_by_half_is_completed() {
    on_machine(|machine| {
        let table = name::table(&machine.id);
        let _outside = machine.outside();
        // Whose table this is, nobody else may replace.
        let mut owner = Command::new("nft")
            .arg("-i")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("runs");
        let mut words = owner.stdin.take().expect("a pipe");
        writeln!(words, "add table ip {table} {{ flags owner; }}").expect("writes");
        let start = Instant::now();
        while !run("nft list tables").contains(&table) {
            assert!(start.elapsed() < WAIT, "the table is not made");
            thread::sleep(Duration::from_millis(10));
        }
        let web = task(1, NetworkMode::Bridge, &[]);
        for attempt in 0..2 {
            let failed = smol::block_on(machine.network.prepare(&web));
            failed.expect_err(&format!("attempt {attempt} has no table"));
        }
        drop(words);
        owner.wait().expect("ends");
        prepare(&machine.network, &web);
        assert!(run(&format!("nft list table ip {table}")).contains("masquerade"));

        // Killed between making the bridge and giving it its address.
        let gateway = machine.gateway();
        run(&format!("ip addr flush dev {}", name::bridge(&machine.id)));
        let restarted = machine.open();
        let netns = prepare(&restarted, &web).netns.expect("a namespace");
        inside(&netns, || run(&format!("busybox ping -c 1 -W 5 {gateway}")));
    });
}

#[test]
fn a_port_is_published_at_an_address_of_version_6() {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return;
    }
    on_machine(|machine| {
        let outside = machine.outside();
        run("ip -6 addr add 2001:db8::1/64 dev up0 nodad");
        inside(&outside, || run("ip -6 addr add 2001:db8::2/64 dev up1 nodad"));
        let field = machine.cabled("field", "fd", "198.51.100");
        run("ip -6 addr add 2001:db8:1::1/64 dev fd0 nodad");
        inside(&field, || {
            run("ip -6 addr add 2001:db8:1::2/64 dev fd1 nodad");
            run("ip -6 route add default via 2001:db8:1::1");
        });
        inside(&outside, || run("ip -6 route add default via 2001:db8::1"));
        let _listener = inside(&field, || TcpListener::bind("[::]:80").expect("binds"));
        let web = task_at(1, "2001:db8::1");
        let setup = prepare(&machine.network, &web);
        let netns = setup.netns.clone().expect("a namespace");
        publish(&machine.network, &web).expect("publishes");
        assert!(refuses("127.0.0.1:8080"));
        inside(&outside, || assert!(is_closed("[2001:db8:1::2]:80"), "the node is no router"));
        run("nft delete table ip6 midge_forward");
        inside(&outside, || assert!(is_open("[2001:db8:1::2]:80"), "it forwards all the same"));
        serve_at(&netns, "[::]:80");
        assert_eq!(inside(&outside, || ask_tcp("[2001:db8::1]:8080")), "2001:db8::2");
        serve_at(&netns, "[::]:80");
        ask_tcp("[2001:db8::1]:8080");
        // What the task itself asks for leaves under the node's address.
        serve_at(&outside, "[2001:db8::2]:80");
        assert_eq!(inside(&netns, || ask_tcp("[2001:db8::2]:80")), "2001:db8::1");
        let hosts = std::fs::read_to_string(setup.hosts.expect("a file")).expect("reads");
        let last = hosts.lines().last().expect("a line");
        assert!(last.starts_with("fd"), "{hosts}");
        let own = last.split_whitespace().next().expect("an address");
        let near = format!("[{own}]:80");
        let listener = inside(&netns, || TcpListener::bind("[::]:80").expect("binds"));
        assert!(is_open(&near), "the node itself reaches it");
        inside(&outside, || {
            run(&format!("ip -6 route add {own} via 2001:db8::1"));
            assert!(is_closed(&near), "it is closed to other machines");
        });
        drop(listener);

        let restarted = machine.open();
        smol::block_on(restarted.retain(&BTreeSet::from([web.id.clone()])));
        serve_at(&netns, "[::]:80");
        assert_eq!(inside(&outside, || ask_tcp("[2001:db8::1]:8080")), "2001:db8::2");
        drop(restarted);
        smol::block_on(machine.network.unpublish(&web.id));
        assert!(refuses("[2001:db8::1]:8080"));

        let every = task_at(2, "::");
        let netns = prepare(&machine.network, &every).netns.expect("a namespace");
        publish(&machine.network, &every).expect("publishes");
        serve_at(&netns, "[::]:80");
        assert_eq!(inside(&outside, || ask_tcp("[2001:db8::1]:8080")), "2001:db8::2");
        let loopback = task_at(3, "::1");
        prepare(&machine.network, &loopback);
        let refused = publish(&machine.network, &loopback).expect_err("cannot be forwarded");
        assert!(refused.message.contains("on ::1"), "{refused:?}");
        smol::block_on(machine.network.teardown());
        // Forwarding stays on, and what it opens closed, since others may need it by now.
        let left = run("nft list tables");
        assert!(left.lines().all(|line| line.ends_with(" midge_forward")), "{left}");
    });
}

#[test]
fn a_port_in_use_is_refused() {
    on_machine(|machine| {
        let listener = TcpListener::bind("127.0.0.1:8080").expect("binds");
        let ports = [(PortProtocol::Tcp, 9090, 90), (PortProtocol::Tcp, 8080, 80)];
        let (one, two) =
            (task(1, NetworkMode::Bridge, &ports), task(2, NetworkMode::Bridge, &ports));
        prepare(&machine.network, &one);
        prepare(&machine.network, &two);
        let in_use = |port| Failure {
            message: format!("port {port}/tcp is already in use on this node"),
            temporary: false,
        };
        assert_eq!(publish(&machine.network, &one), Err(in_use(8080)));
        assert!(machine.network.ports(&one.id).is_empty());
        drop(listener);
        publish_again(&machine.network, &one);
        assert_eq!(publish(&machine.network, &two), Err(in_use(9090)));
        smol::block_on(machine.network.remove(&one.id)).expect("removes");
        publish_again(&machine.network, &two);
    });
}

#[test]
fn a_restart_keeps_addresses_and_ports_and_removes_leftovers() {
    on_machine(|machine| {
        let web = task(1, NetworkMode::Bridge, &[(PortProtocol::Tcp, 8080, 80)]);
        let gone = task(2, NetworkMode::Bridge, &[]);
        let before = prepare(&machine.network, &web);
        prepare(&machine.network, &gone);
        publish(&machine.network, &web).expect("publishes");
        run(&format!("nft delete table ip {}", name::table(&machine.id)));

        let restarted = machine.open();
        assert_eq!(restarted.address(&web.id), before.address);
        smol::block_on(restarted.retain(&BTreeSet::from([web.id.clone()])));
        assert!(!machine.netns(&gone).exists());
        assert_eq!(restarted.address(&gone.id), None);
        assert_eq!(restarted.ports(&web.id)[0].port.published, 8080);
        serve_tcp(&machine.netns(&web), 80);
        ask_tcp("127.0.0.1:8080");
        assert_eq!(prepare(&restarted, &web), before);

        // Somebody removes the bridge; the next task brings it back, for all.
        run(&format!("ip link del {}", name::bridge(&machine.id)));
        let third = prepare(&restarted, &task(3, NetworkMode::Bridge, &[]));
        let address = before.address.expect("an address");
        inside(&third.netns.expect("a namespace"), || {
            run(&format!("busybox ping -c 1 -W 5 {address}"))
        });
        smol::block_on(restarted.remove(&web.id)).expect("removes");
        smol::block_on(restarted.remove(&web.id)).expect("removing twice is removing once");
        assert!(!machine.netns(&web).exists());
    });
}

#[test]
fn teardown_leaves_nothing() {
    on_machine(|machine| {
        let web = task(1, NetworkMode::Bridge, &[(PortProtocol::Tcp, 8080, 80)]);
        let lone = task(2, NetworkMode::None, &[(PortProtocol::Tcp, 8080, 80)]);
        let host = task(3, NetworkMode::Host, &[(PortProtocol::Tcp, 0, 80)]);
        prepare(&machine.network, &web);
        publish(&machine.network, &web).expect("publishes");
        let setup = prepare(&machine.network, &lone);
        assert!(setup.hosts.expect("a file").exists());
        let links = inside(&setup.netns.expect("a namespace"), || run("ip -o link"));
        assert!(!links.contains("eth0") && links.contains("lo"), "{links}");
        assert_eq!(publish(&machine.network, &lone), Ok(Vec::new()));
        assert_eq!(prepare(&machine.network, &host).netns, None);
        let ports = publish(&machine.network, &host).expect("publishes");
        assert_eq!(ports[0].port.published, 80);
        assert!(run("nft list ruleset").contains("dnat to"));

        smol::block_on(machine.network.teardown());
        assert_eq!(run("nft list ruleset"), "");
        let links = run("ip -o link");
        assert!(!links.contains("mdg") && !links.contains("mv"), "{links}");
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").expect("reads");
        assert!(!mounts.contains(&format!("{}/run", machine.dir.path().display())), "{mounts}");
        let left: Vec<_> = ["data", "run"]
            .iter()
            .flat_map(|dir| std::fs::read_dir(machine.dir.path().join(dir)).expect("reads"))
            .map(|entry| entry.expect("reads").path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    });
}
