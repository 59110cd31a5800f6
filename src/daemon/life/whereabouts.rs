//! Where this node is reached, as the machine's addresses change: by DHCP, or on another network.
//!
//! The kernel says that an address came or went; [`address::judge`] says what that means. What other
//! nodes are told is written down first, and then said: a manager whose address is not among those
//! that the leader names says so when it asks for its role.

use crate::{
    daemon::{
        member::{Told, managers},
        membership::{
            Membership, MembershipError,
            address::{self, Advertised, Origin, Verdict},
        },
        shared::Shared,
    },
    network::AddressChanges,
    node::Handle,
    transport::Endpoint,
    types::{ADDRESS_LOST, Role},
    util::{error::chain, interfaces::interfaces},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Weak,
    time::Duration,
};

/// How long to wait for further changes after one: a DHCP client takes an address away and gives
/// another, or the same one again, within less.
const SETTLE: Duration = Duration::from_secs(1);

/// The wait before the kernel is listened to again where it would not speak, and before what the disk
/// did not take is written again.
const LISTEN_AGAIN: Duration = Duration::from_secs(60);

/// What is wrong with the addresses of a node, for people; none where nothing is.
type Complaint = Option<String>;

/// Makes what other nodes are told what it should be by now. Returns what is wrong that midge may not
/// put right, or cannot.
pub(crate) fn follow(configured: &str, membership: &mut Membership) -> Complaint {
    let own = interfaces();
    let before = membership.clone();
    if !configured.is_empty()
        && let Err(error) = obey(configured, membership)
    {
        tracing::warn!(%error, "advertise_addr of the configuration does not count");
    }
    let manager = membership.other_managers().iter().find_map(|it| it.parse::<SocketAddr>().ok());
    let way = address::way_to(manager);
    let origin = membership.advertise_by.as_ref();
    match address::judge(&membership.advertise, origin, &own, way) {
        // A machine that has no address yet has nothing in the place of a name.
        Verdict::Stays if is_nowhere(&membership.advertise) => *membership = before,
        Verdict::Stays => {}
        Verdict::Moves(address) => {
            let origin = membership.advertise_by.clone().unwrap_or(Origin::Found);
            membership.set_advertised(Advertised { address, origin });
        }
        Verdict::Lost(why) => {
            if is_nowhere(&membership.advertise) {
                *membership = before;
            }
            // Where it listens again it may be reached again, and not the other way round.
            return listens_nowhere(membership, &own).or(Some(why));
        }
    }
    listens_nowhere(membership, &own)
}

/// Takes over what the configuration says.
fn obey(configured: &str, membership: &mut Membership) -> Result<(), address::AddressError> {
    let listen = address::listen(&membership.listen)?;
    if configured != "auto" {
        let told = address::advertise(configured, (&membership.listen, listen))?;
        // What was this machine's own is known as such after it is lost.
        if told.address != membership.advertise {
            membership.set_advertised(told);
        }
    } else if membership.advertise_by != Some(Origin::Found) {
        let known = membership.advertise.parse::<SocketAddr>();
        let address =
            known.map_or_else(|_| format!("0.0.0.0:{}", listen.port()), |it| it.to_string());
        membership.set_advertised(Advertised { address, origin: Origin::Found });
    }
    Ok(())
}

fn is_nowhere(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
}

/// Returns what is wrong where a node listens at one address that the machine does not have, or at
/// one interface without any. A machine without any address is only between two of them.
fn listens_nowhere(membership: &Membership, own: &[(String, IpAddr)]) -> Complaint {
    let text = &membership.listen;
    let place = match text.parse::<SocketAddr>() {
        Ok(address) => {
            let ip = address.ip();
            let has = own.iter().any(|(_, it)| *it == ip);
            (!has && !ip.is_unspecified() && !ip.is_loopback()).then(|| ip.to_string())
        }
        Err(_) => {
            let name = text.rsplit_once(':').map_or(text.as_str(), |(name, _)| name);
            (!own.iter().any(|(it, _)| it == name)).then(|| format!("the address of {name}"))
        }
    };
    let place = place.filter(|_| !own.is_empty())?;
    let alone = membership.role == Role::Manager && membership.other_managers().is_empty();
    let otherwise = if alone {
        "have it listen elsewhere: `midge swarm init --force-new-cluster --listen-addr ADDRESS \
         --advertise-addr ADDRESS`, which keeps the cluster"
    } else {
        "have the node leave and join again with another --listen-addr"
    };
    Some(format!(
        "this node listens at {place} only, which a user had it do and the machine does not have: \
         give it back, or {otherwise}"
    ))
}

/// Returns this machine's own address on the way to a manager, `host:port`.
pub(crate) async fn own_address(shared: &Shared, manager: &str, port: u16) -> Option<String> {
    let found = shared.resolver.resolve_pair(manager, crate::transport::PORT).await.ok()?;
    let own = address::way_to(found.first().copied())?;
    Some(SocketAddr::from((own, port)).to_string())
}

/// A running member, as far as its addresses go.
#[derive(Debug)]
pub(crate) struct Reached {
    handle: Handle,
    endpoint: Endpoint,
    told: Told,
    locked: bool,
    /// The machine's addresses when they were last looked at.
    own: Option<Vec<(String, IpAddr)>>,
    /// Whether it listens where it should.
    listens: bool,
}

/// Follows the machine's addresses, until dropped.
pub(crate) fn follow_machine(
    shared: Weak<Shared>,
    handle: &Handle,
    endpoint: &Endpoint,
    told: &Told,
    locked: bool,
) -> smol::Task<()> {
    let (handle, endpoint, told) = (handle.clone(), endpoint.clone(), told.clone());
    smol::spawn(run(shared, Reached { handle, endpoint, told, locked, own: None, listens: false }))
}

async fn run(shared: Weak<Shared>, mut member: Reached) {
    loop {
        match AddressChanges::new() {
            Ok(mut changes) => loop {
                let Some(shared) = shared.upgrade() else { return };
                let looked = member.look(&shared);
                drop(shared);
                if !looked || !changes.next().await {
                    break;
                }
                smol::Timer::after(SETTLE).await;
                changes.skip();
            },
            Err(error) => {
                tracing::warn!(error = chain(&error), "changes of addresses go unnoticed for now");
            }
        }
        smol::Timer::after(LISTEN_AGAIN).await;
    }
}

impl Reached {
    /// Returns whether all is done that is to be done.
    fn look(&mut self, shared: &Shared) -> bool {
        let own = address::outer(interfaces());
        // Containers come and go with addresses of their own. One of version 6 that came can be
        // listened at only once the kernel knows it for the only one, and then says so again.
        let before = self.own.replace(own);
        if before == self.own && self.listens {
            return true;
        }
        let (complaint, done) = match self.follow(shared) {
            Ok(followed) => followed,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot write down this node's address");
                self.own = None;
                return false;
            }
        };
        if complaint != self.handle.status().address_health {
            match &complaint {
                Some(complaint) => tracing::warn!("{complaint}"),
                None => tracing::info!("this node has the addresses that others know again"),
            }
            self.handle.set_address_health(complaint);
        }
        // Who waits to look for a manager once more need not wait now.
        if before.is_some() {
            self.endpoint.look_again();
        }
        done
    }

    /// Returns what is wrong, and whether all is done that is to be done.
    fn follow(&mut self, shared: &Shared) -> Result<(Complaint, bool), MembershipError> {
        let data_dir = &shared.options.data_dir;
        let Some(mut membership) = Membership::load(data_dir)? else { return Ok((None, true)) };
        let before = membership.clone();
        let complaint = follow(&shared.config.advertise_addr, &mut membership);
        if membership != before {
            membership.save(data_dir)?;
        }
        if membership.advertise != self.told.get() {
            let (from, to) = (self.told.get(), &membership.advertise);
            tracing::info!(from, to, "other nodes are told another address of this one");
            self.told.set(&membership.advertise);
            if membership.role == Role::Manager {
                self.endpoint.set_managers(managers(&membership, self.locked));
            }
        }
        let done = self.listen(&membership.listen);
        // Nobody looks for a worker where it is.
        let complaint = match membership.role {
            Role::Manager => complaint,
            Role::Worker => listens_nowhere(&membership, &interfaces()),
        };
        Ok((complaint.map(|why| format!("{ADDRESS_LOST}{why}")), done))
    }

    /// Listens where the interface is now that a user named, or at the address that came back.
    /// Returns whether nothing is to be tried again before an address changes.
    fn listen(&mut self, text: &str) -> bool {
        let Ok(wanted) = address::listen(text) else {
            self.listens = false;
            return true;
        };
        let present = self.endpoint.local_address().ok();
        self.listens = wanted.ip().is_unspecified() || present == Some(wanted);
        if self.listens {
            return true;
        }
        match self.endpoint.rebind(wanted) {
            Ok(()) => {
                tracing::info!(%wanted, "listening at another address");
                self.listens = true;
                true
            }
            Err(error) => {
                tracing::warn!(%wanted, error = chain(&error), "cannot listen there");
                error.lacks_address()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, Date, NodeId};

    fn membership(advertise: &str, origin: Option<Origin>) -> Membership {
        let (node, cluster) = (NodeId::from_bits(1), ClusterId::from_bits(1));
        let mut membership =
            Membership::new(node, cluster, Role::Manager, Date::from_unix_seconds(1));
        membership.listen = "0.0.0.0:77".to_owned();
        membership.advertise = advertise.to_owned();
        membership.managers = vec![advertise.to_owned(), "203.0.113.9:77".to_owned()];
        membership.advertise_by = origin;
        membership
    }

    #[test]
    fn the_configuration_counts_before_what_was_said_once() {
        let mut lost = membership("203.0.113.1:77", Some(Origin::Own));
        obey("203.0.113.2", &mut lost).unwrap();
        assert_eq!(lost.advertise, "203.0.113.2:77");
        assert_eq!(lost.managers, ["203.0.113.2:77", "203.0.113.9:77"]);
        assert_eq!(lost.advertise_by, Some(Origin::Given));
        obey("auto", &mut lost).unwrap();
        assert_eq!(lost.advertise_by, Some(Origin::Found));
        let mut named = membership("pi.example.com:77", Some(Origin::Given));
        obey("auto", &mut named).unwrap();
        assert_eq!(named.advertise, "0.0.0.0:77", "no address that a machine has");
        let before = named.clone();
        assert!(obey("nope0", &mut named).is_err());
        assert_eq!(named, before);
    }

    #[test]
    fn what_was_its_own_is_so_after_it_is_lost() {
        let mut own = membership("203.0.113.1:77", Some(Origin::Own));
        obey("203.0.113.1", &mut own).unwrap();
        assert_eq!(own.advertise_by, Some(Origin::Own));
    }

    #[test]
    fn a_place_to_listen_that_is_gone_is_complained_of() {
        let own = [("eth0".to_owned(), "10.0.0.2".parse().unwrap())];
        let says = |listen: &str, own: &[(String, IpAddr)]| {
            let mut node = membership("203.0.113.1:77", None);
            node.listen = listen.to_owned();
            listens_nowhere(&node, own)
        };
        for gone in ["10.0.0.1:77", "eth1:77"] {
            let says = says(gone, &own).unwrap();
            assert!(says.contains("leave and join again"), "{says}");
        }
        for fine in ["10.0.0.2:77", "0.0.0.0:77", "[::]:77", "127.0.0.1:77", "eth0:77"] {
            assert_eq!(says(fine, &own), None, "{fine}");
        }
        assert_eq!(says("10.0.0.1:77", &[]), None, "between two addresses");
        // Leaving would be the end of its cluster.
        let mut only = membership("203.0.113.1:77", None);
        only.managers.truncate(1);
        only.listen = "10.0.0.1:77".to_owned();
        assert!(listens_nowhere(&only, &own).unwrap().contains("--force-new-cluster"));
    }
}
