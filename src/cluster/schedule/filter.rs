//! Filters: what a node must satisfy for a task, in Swarm's order and with Swarm's texts.

use super::{
    Volatile,
    node_set::{Credit, Port, Seat, wanted_ports},
};
use crate::types::{
    Availability, HeldImage, NodeId, NodeState, Platform, Task, host_ips_meet, image::Reference,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// The first filter that a node does not pass. Variants are in the order of the filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    Ready,
    Resources,
    CpuLimit,
    MemoryLimit,
    PidsLimit,
    Constraints,
    Platform,
    Image,
    HostPort,
    MaxReplicas,
}

/// A task's demands, looked up once for all nodes.
#[derive(Debug)]
pub(super) struct Checks<'a> {
    task: &'a Task,
    ports: BTreeSet<(Port, Option<IpAddr>)>,
    /// What the image was made for; empty is unknown.
    platforms: BTreeSet<Platform>,
    /// The nodes that hold the image; none where it can be had elsewhere.
    holders: Option<BTreeSet<&'a NodeId>>,
}

impl<'a> Checks<'a> {
    pub(super) fn new(task: &'a Task, volatile: &'a Volatile) -> Self {
        let mut platforms: BTreeSet<Platform> =
            task.spec.placement.platforms.iter().cloned().collect();
        if platforms.is_empty() {
            platforms = held_platforms(&task.spec.container.image, volatile);
        }
        let holders = task.spec.pin.as_ref().map(|pin| {
            let holds = |images: &Vec<HeldImage>| images.iter().any(|i| i.digest == pin.digest);
            let now = volatile.images.iter().filter(|(_, images)| holds(images));
            now.map(|(node, _)| node).chain(&pin.nodes).collect()
        });
        Self { task, ports: wanted_ports(task).collect(), platforms, holders }
    }

    pub(super) fn task(&self) -> &'a Task {
        self.task
    }

    /// Returns the first filter that the node does not pass; none where the task can go there.
    pub(super) fn first_failure(&self, seat: &Seat<'_>, credit: Credit<'_>) -> Option<Failure> {
        let checks: [(Failure, &dyn Fn() -> bool); 10] = [
            (Failure::Ready, &|| is_ready(seat)),
            (Failure::Resources, &|| self.fits(seat, credit)),
            (Failure::CpuLimit, &|| self.limits().nano_cpus == 0 || cgroups(seat).cpu),
            (Failure::MemoryLimit, &|| self.limits().memory_bytes == 0 || cgroups(seat).memory),
            (Failure::PidsLimit, &|| self.limits().pids == 0 || cgroups(seat).pids),
            (Failure::Constraints, &|| self.meets_constraints(seat)),
            (Failure::Platform, &|| self.runs_on(seat)),
            (Failure::Image, &|| self.has_image(seat)),
            (Failure::HostPort, &|| self.ports_free(seat, credit)),
            (Failure::MaxReplicas, &|| self.below_max(seat, credit)),
        ];
        checks.into_iter().find(|(_, passes)| !passes()).map(|(failure, _)| failure)
    }

    fn limits(&self) -> &crate::types::ResourceLimits {
        &self.task.spec.limits
    }

    fn fits(&self, seat: &Seat<'_>, credit: Credit<'_>) -> bool {
        let (total, wanted) = (&seat.node.description.resources, &self.task.spec.reservations);
        let fits = |total: u64, reserved: u64, credited: u64, wanted: u64| {
            // A task that reserves nothing fits on a node that is overbooked.
            wanted == 0 || reserved.saturating_sub(credited).saturating_add(wanted) <= total
        };
        let generic = &self.task.spec.generic;
        let left = || seat.generic.claim(&seat.node.description.generic, generic, credit);
        (generic.is_empty() || left().is_some())
            && fits(
                total.nano_cpus,
                seat.reserved.nano_cpus,
                credit.reserved.nano_cpus,
                wanted.nano_cpus,
            )
            && fits(
                total.memory_bytes,
                seat.reserved.memory_bytes,
                credit.reserved.memory_bytes,
                wanted.memory_bytes,
            )
    }

    fn meets_constraints(&self, seat: &Seat<'_>) -> bool {
        self.task.spec.placement.constraints.iter().all(|c| c.matches(seat.node))
    }

    fn runs_on(&self, seat: &Seat<'_>) -> bool {
        let node = &seat.node.description.platform;
        self.platforms.is_empty() || self.platforms.iter().any(|image| node.runs(image))
    }

    fn has_image(&self, seat: &Seat<'_>) -> bool {
        self.holders.as_ref().is_none_or(|holders| holders.contains(&seat.node.id))
    }

    fn ports_free(&self, seat: &Seat<'_>, credit: Credit<'_>) -> bool {
        self.ports.iter().all(|(port, address)| {
            let holders = seat.ports.get(port);
            holders.is_none_or(|all| {
                all.iter().all(|(holder, held)| {
                    credit.holder == Some(holder) || !host_ips_meet(*held, *address)
                })
            })
        })
    }

    fn below_max(&self, seat: &Seat<'_>, credit: Credit<'_>) -> bool {
        let max = self.task.spec.placement.max_replicas_per_node;
        max == 0 || seat.of_service.saturating_sub(u64::from(credit.slot)) < max
    }
}

fn is_ready(seat: &Seat<'_>) -> bool {
    seat.node.status.state == NodeState::Ready
        && seat.node.spec.availability == Availability::Active
        && !seat.suspect
}

fn cgroups(seat: &Seat<'_>) -> crate::types::CgroupSupport {
    seat.node.description.cgroups
}

/// Returns the platforms for which any node holds the image.
fn held_platforms(image: &str, volatile: &Volatile) -> BTreeSet<Platform> {
    let Ok(wanted) = Reference::parse(image) else { return BTreeSet::new() };
    let tagged = Reference { digest: None, ..wanted.clone() }.to_string();
    let is_it = |held: &&HeldImage| match &wanted.digest {
        Some(digest) => held.digest == *digest,
        None => held.name == tagged,
    };
    let held = volatile.images.values().flatten().filter(is_it);
    held.flat_map(|image| image.platforms.iter().cloned()).collect()
}

/// Returns why no node takes the task: reasons with most nodes first.
pub(super) fn explain(failures: &BTreeMap<Failure, usize>, checks: &Checks<'_>) -> String {
    if failures.is_empty() {
        return "no suitable node".to_owned();
    }
    let mut failures: Vec<(Failure, usize)> = failures.iter().map(|(f, n)| (*f, *n)).collect();
    failures.sort_by_key(|(failure, count)| (std::cmp::Reverse(*count), *failure));
    let reasons: Vec<String> =
        failures.iter().map(|(failure, count)| reason(*failure, *count, checks)).collect();
    format!("no suitable node ({})", reasons.join("; "))
}

pub(super) fn reason(failure: Failure, count: usize, checks: &Checks<'_>) -> String {
    let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
    let controller = |limit: &str, name: &str| {
        format!("{limit} limit needs the {name} cgroup controller, missing on {nodes}")
    };
    match failure {
        Failure::Ready => format!("{nodes} not available for new tasks"),
        Failure::Resources => format!("insufficient resources on {nodes}"),
        Failure::CpuLimit => controller("cpu", "cpu"),
        Failure::MemoryLimit => controller("memory", "memory"),
        Failure::PidsLimit => controller("pids", "pids"),
        Failure::Constraints => format!("scheduling constraints not satisfied on {nodes}"),
        Failure::Platform => format!("unsupported platform on {nodes}"),
        Failure::Image => {
            let image = &checks.task().spec.container.image;
            let name = image.split('@').next().unwrap_or(image);
            format!("image {name} came from no registry and is not held on {nodes}")
        }
        Failure::HostPort => format!("host-mode port already in use on {nodes}"),
        Failure::MaxReplicas => "max replicas per node limit exceed".to_owned(),
    }
}
