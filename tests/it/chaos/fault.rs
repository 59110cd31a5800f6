//! What goes wrong, and how it is mended. Hosts are named by their index.

use super::Chaos;
use crate::{disks::fill, host::Host};
use std::{fs, time::Duration};

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The daemon is killed; containers run on.
    Kill(usize),
    /// The daemon stands still.
    Stop(usize),
    /// The machine's link is down.
    Unplug(usize),
    /// Nothing reaches the machine; what it sends arrives.
    Deaf(usize),
    /// Nothing that the machine sends arrives; everything reaches it.
    Mute(usize),
    /// These machines and all others do not reach each other.
    Part(Vec<usize>),
    /// One of five packets is lost, between any two machines.
    Lossy,
    /// Every packet between managers takes so long.
    Slow(Duration),
    /// The machine's wall clock goes wrong by so many seconds.
    Clock(usize, i64),
    /// No room is left where the machine keeps its state.
    FullDisk(usize),
    /// The disk with the machine's state does not answer.
    HungDisk(usize),
    /// The machines have no power: daemons, containerd and containers end.
    PowerOff(Vec<usize>),
}

impl Fault {
    /// Returns the machines that are hit; the containers of others must not notice.
    pub(super) fn hits(&self) -> Vec<usize> {
        match self {
            Self::Kill(host)
            | Self::Stop(host)
            | Self::Unplug(host)
            | Self::Deaf(host)
            | Self::Mute(host)
            | Self::FullDisk(host)
            | Self::HungDisk(host) => vec![*host],
            Self::Part(hosts) | Self::PowerOff(hosts) => hosts.clone(),
            Self::Lossy | Self::Slow(_) | Self::Clock(..) => Vec::new(),
        }
    }
}

impl Chaos {
    /// Lets it go wrong.
    pub(super) fn begin(&mut self, fault: &Fault) {
        crate::host::note(&format!("{:?}: begins {fault:?}", self.begun.elapsed()));
        self.hit.extend(fault.hits());
        let hosts = &mut self.network.hosts;
        match fault {
            Fault::Kill(host) => hosts[*host].kill_daemon(),
            Fault::Stop(host) => signal(&hosts[*host], "STOP"),
            Fault::Unplug(host) => hosts[*host].link(false),
            Fault::Deaf(host) => self.drop_frames("deaf", &format!("oifname p{}", host + 1)),
            Fault::Mute(host) => self.drop_frames("mute", &format!("iifname p{}", host + 1)),
            Fault::Part(hosts) => {
                let ports: Vec<String> =
                    hosts.iter().map(|host| format!("p{}", host + 1)).collect();
                let ports = ports.join(", ");
                self.drop_frames("in", &format!("iifname != {{ {ports} }} oifname {{ {ports} }}"));
                self.drop_frames("out", &format!("iifname {{ {ports} }} oifname != {{ {ports} }}"));
            }
            Fault::Lossy => self.drop_frames("lossy", "numgen random mod 100 < 20"),
            Fault::Slow(delay) => self.relays.as_ref().unwrap().delay(*delay),
            Fault::Clock(host, seconds) => {
                fs::write(hosts[*host].dir.join("clock"), seconds.to_string()).unwrap();
            }
            Fault::FullDisk(host) => drop(fill(&hosts[*host])),
            Fault::HungDisk(host) => {
                let data = hosts[*host].dir.join("data");
                hosts[*host].sh(&format!("fsfreeze -f {}", data.display()));
            }
            Fault::PowerOff(off) => off.iter().for_each(|host| hosts[*host].power_off()),
        }
    }

    /// Mends it.
    pub(super) fn end(&mut self, fault: &Fault) {
        crate::host::note(&format!("{:?}: ends {fault:?}", self.begun.elapsed()));
        let hosts = &mut self.network.hosts;
        match fault {
            Fault::Kill(host) => hosts[*host].start_daemon(),
            Fault::Stop(host) => signal(&hosts[*host], "CONT"),
            Fault::Unplug(host) => hosts[*host].link(true),
            Fault::Deaf(_) => self.pass_frames("deaf"),
            Fault::Mute(_) => self.pass_frames("mute"),
            Fault::Part(_) => ["in", "out"].iter().for_each(|name| self.pass_frames(name)),
            Fault::Lossy => self.pass_frames("lossy"),
            Fault::Slow(_) => self.relays.as_ref().unwrap().delay(Duration::ZERO),
            Fault::Clock(host, _) => {
                fs::write(hosts[*host].dir.join("clock"), "0").unwrap();
            }
            Fault::FullDisk(host) => fs::remove_file(hosts[*host].dir.join("data/fill")).unwrap(),
            Fault::HungDisk(host) => thaw(&hosts[*host]),
            // Whoever was first off is last on.
            Fault::PowerOff(off) => {
                for host in off.iter().rev() {
                    hosts[*host].start_containerd();
                    hosts[*host].start_daemon();
                }
            }
        }
    }

    /// Drops what matches, on its way over the switch.
    fn drop_frames(&self, name: &str, what: &str) {
        self.network.on_switch(&format!(
            "nft \"add table bridge {name}; \
             add chain bridge {name} pass {{ type filter hook forward priority 0; }}; \
             add rule bridge {name} pass {what} drop\""
        ));
    }

    fn pass_frames(&self, name: &str) {
        self.network.on_switch(&format!("nft delete table bridge {name}"));
    }
}

fn signal(host: &Host, signal: &str) {
    host.sh(&format!("kill -{signal} {}", host.pid()));
}

/// Lets a host's disk go on: nothing else could ever be done to it.
pub(super) fn thaw(host: &Host) {
    let data = host.dir.join("data");
    std::process::Command::new("fsfreeze").arg("-u").arg(data).output().ok();
}

/// Gives a host's daemon a wall clock that can be set, by a library that is loaded before the C
/// library: all of its time comes from there.
pub(crate) fn give_clock(host: &mut Host) {
    let library = host.dir.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/chaos/clock.c");
    host.sh(&format!("cc -shared -fPIC -O1 -o {} {source}", library.display()));
    let clock = host.dir.join("clock");
    fs::write(&clock, "0").unwrap();
    host.environment = vec![("LD_PRELOAD", library), ("MIDGE_TEST_CLOCK", clock)];
    // The one that `make build` makes loads no library.
    host.binary = env!("CARGO_BIN_EXE_midge").into();
}
