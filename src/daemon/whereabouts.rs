//! Where this node is reached, as the machine's addresses change: by DHCP, or on another network.
//!
//! The kernel says that an address came or went; [`address::judge`] says what that means. What other
//! nodes are told is written down first, and then said: a manager whose address is not among those
//! that the leader names says so when it asks for its role.

use super::{
    Shared,
    address::{self, Advertised, Origin, Verdict},
    member,
    membership::{Membership, MembershipError},
};
use crate::{
    network::AddressChanges,
    node::Handle,
    runtime::image::chain,
    transport::Endpoint,
    types::{ADDRESS_LOST, Role},
    util::interfaces::interfaces,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

/// How long to wait for further changes after one: a DHCP client takes an address away and gives
/// another, or the same one again, within less.
const SETTLE: Duration = Duration::from_secs(1);

/// The wait before the kernel is listened to again where it would not speak, and before what the disk
/// did not take is written again.
const LISTEN_AGAIN: Duration = Duration::from_secs(60);

/// What other nodes are told by now, `host:port`. All clones are one.
#[derive(Debug, Clone)]
pub(super) struct Told(Arc<Mutex<String>>);

impl Told {
    pub(super) fn new(address: &str) -> Self {
        Self(Arc::new(Mutex::new(address.to_owned())))
    }

    pub(super) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, address: &str) {
        address.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What is wrong with the addresses of a node, for people; none where nothing is.
type Complaint = Option<String>;

/// Makes what other nodes are told what it should be by now. Returns what is wrong that midge may not
/// put right, or cannot.
pub(super) fn follow(configured: &str, membership: &mut Membership) -> Complaint {
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
            return Some(why);
        }
    }
    listens_nowhere(&membership.listen, &own)
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

/// Returns what is wrong where a node listens at one address that the machine does not have. A
/// machine without any is only between two of them.
fn listens_nowhere(listen: &str, own: &[(String, IpAddr)]) -> Complaint {
    let ip = listen.parse::<SocketAddr>().ok()?.ip();
    let has = own.is_empty() || own.iter().any(|(_, it)| *it == ip);
    (!has && !ip.is_unspecified() && !ip.is_loopback()).then(|| {
        format!(
            "this node listens at {ip} only, which a user had it do and the machine no longer has: \
             give it back, or have the node leave and join again with another --listen-addr"
        )
    })
}

/// A running member, as far as its addresses go.
#[derive(Debug)]
pub(super) struct Reached {
    handle: Handle,
    endpoint: Endpoint,
    told: Told,
    locked: bool,
    /// The machine's addresses when they were last looked at.
    own: Option<Vec<(String, IpAddr)>>,
}

/// Follows the machine's addresses, until dropped.
pub(super) fn follow_machine(
    shared: Weak<Shared>,
    handle: &Handle,
    endpoint: &Endpoint,
    told: &Told,
    locked: bool,
) -> smol::Task<()> {
    let (handle, endpoint, told) = (handle.clone(), endpoint.clone(), told.clone());
    smol::spawn(run(shared, Reached { handle, endpoint, told, locked, own: None }))
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
        // Containers come and go with addresses of their own.
        let before = self.own.replace(own);
        if before == self.own {
            return true;
        }
        let complaint = match self.follow(shared) {
            Ok(complaint) => complaint,
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
        true
    }

    fn follow(&self, shared: &Shared) -> Result<Complaint, MembershipError> {
        let data_dir = &shared.options.data_dir;
        let Some(mut membership) = Membership::load(data_dir)? else { return Ok(None) };
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
                self.endpoint.set_managers(member::managers(&membership, self.locked));
            }
        }
        self.listen(&membership.listen);
        let complaint = complaint.filter(|_| membership.role == Role::Manager);
        Ok(complaint.map(|why| format!("{ADDRESS_LOST}{why}")))
    }

    /// Listens where the interface is now that a user named.
    fn listen(&self, text: &str) {
        let (Ok(wanted), Ok(present)) = (address::listen(text), self.endpoint.local_address())
        else {
            return;
        };
        if wanted == present || wanted.ip().is_unspecified() {
            return;
        }
        match self.endpoint.rebind(wanted) {
            Ok(()) => tracing::info!(%wanted, "listening at another address"),
            Err(error) => tracing::warn!(%wanted, error = chain(&error), "cannot listen there"),
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
        assert!(listens_nowhere("10.0.0.1:77", &own).is_some());
        for fine in ["10.0.0.2:77", "0.0.0.0:77", "[::]:77", "127.0.0.1:77", "eth0:77"] {
            assert_eq!(listens_nowhere(fine, &own), None, "{fine}");
        }
        assert_eq!(listens_nowhere("10.0.0.1:77", &[]), None, "between two addresses");
    }
}
