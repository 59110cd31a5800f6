//! Relays between managers: what one sends another arrives late, as over a link around the world.
//!
//! A host's packets to the port of another's daemon are turned to a socket of ours on that host,
//! which sends them on after the delay; answers come back through it as late. Made before the
//! daemons start, since a flow that was there before is not turned.

use crate::host::Host;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Where daemons listen.
const PORT: u16 = 2377;

/// The port of the relay to the first host; the others follow.
const RELAY_PORT: u16 = 40_000;

/// How often a relay looks whether it is to end.
const LOOK: Duration = Duration::from_millis(200);

/// What all relays of a network share.
#[derive(Debug, Default)]
struct Shared {
    delay_millis: AtomicU64,
    ended: AtomicBool,
}

/// The relays of a network; they end when dropped.
#[derive(Debug)]
pub(super) struct Relays(Arc<Shared>);

impl Relays {
    /// Puts a relay between every two hosts, in both directions. They add nothing yet.
    pub(super) fn between(hosts: &[Host]) -> Self {
        let shared = Arc::<Shared>::default();
        for host in hosts {
            host.sh("nft 'add table ip relay; \
                 add chain ip relay out { type nat hook output priority -100; }; \
                 add rule ip relay out udp sport 40000-40999 return'");
            for (port, other) in (RELAY_PORT..).zip(hosts) {
                if other.address == host.address {
                    continue;
                }
                let (here, there) = (&host.address, &other.address);
                host.sh(&format!(
                    "nft 'add rule ip relay out ip daddr {there} udp dport {PORT} \
                     dnat to {here}:{port}'"
                ));
                let socket = Arc::new(socket_on(host, port));
                let address = |host: &str| format!("{host}:{PORT}").parse().unwrap();
                relay(&shared, socket, [address(here), address(there)]);
            }
        }
        Self(shared)
    }

    /// Delays what is sent from now on by so much, in each direction.
    pub(super) fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap();
        self.0.delay_millis.store(millis, Ordering::Relaxed);
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// Makes a socket in a host's network namespace, on a thread that moves there and ends.
fn socket_on(host: &Host, port: u16) -> UdpSocket {
    let namespace = File::open(format!("/run/netns/{}", host.namespace)).unwrap();
    let address = SocketAddr::new(host.address.parse().unwrap(), port);
    let made = thread::spawn(move || {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), network).unwrap();
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        socket
    });
    made.join().unwrap()
}

/// Sends on what each of the two ends sends, until the network is gone.
fn relay(shared: &Arc<Shared>, socket: Arc<UdpSocket>, ends: [SocketAddr; 2]) {
    let (late, due) = mpsc::channel::<(Instant, SocketAddr, Vec<u8>)>();
    let sender = Arc::clone(&socket);
    thread::spawn(move || {
        while let Ok((at, to, packet)) = due.recv() {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            // As on any link, what cannot be sent is lost.
            sender.send_to(&packet, to).ok();
        }
    });
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while !shared.ended.load(Ordering::Relaxed) {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            let to = if from == ends[0] { ends[1] } else { ends[0] };
            let delay = Duration::from_millis(shared.delay_millis.load(Ordering::Relaxed));
            late.send((Instant::now() + delay, to, buffer[..length].to_vec())).unwrap();
        }
    });
}
