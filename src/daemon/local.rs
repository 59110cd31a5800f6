//! What the API asks of this node.

use super::{
    containers::{
        chores, ending,
        exec::{self, Execs},
        images, logs,
    },
    life::{backup, recovery, swarm},
    member::Duty,
    membership::address::host_of,
    remote::Target,
    shared::{Shared, as_manager, not_in_swarm},
};
use crate::{
    api::local::{
        Answer, Archive, BoxFuture, BoxStream, Container, ContainerExit, ContainerState, ExecState,
        Info, InitOptions, JoinOptions, LastEntry, LocalNode, LogItem, LogOptions, MountPoint,
        NodeAnswer, NodeSelector, Place, Progress, PullOptions, Resolved, RestoreOptions, Standing,
        StartOptions, Started, StopOptions, SwarmState,
    },
    cluster::{Class, Query, Refusal, Request, Response},
    node::{Ended, LocalTask},
    pki::{TokenText, to_pem, unlock_key_text},
    runtime::{
        ContainerInfo, Mounted,
        apparmor::{self, AppArmor},
    },
    types::{
        Chore, Cluster, ExecSpec, Node, NodeId, NodeState, Occurrence, PathStat, Platform,
        ProcessTable, RegistryCredential, Role, RootRotation, TerminalSize, UnpackOptions, Usage,
        image::Reference,
    },
    util::{board::Reading, deadline::within, error::chain, unblock::unblock, unbroken},
};
use bytes::Bytes;
use futures_lite::future::zip;
use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

/// How long the leader may take to answer: two commits on the slowest card, and a queue.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How long containerd may take to say what it has: whoever asks what this node is is not to wait for a
/// containerd that hangs.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(2);

/// How long the agent may take to say what it has.
const TASKS_LIMIT: Duration = Duration::from_secs(5);

/// This node, as the API sees it.
#[derive(Debug)]
pub(super) struct Local {
    shared: Arc<Shared>,
    /// Commands in containers that clients made here.
    execs: Execs,
}

impl Local {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, execs: Execs::default() }
    }
}

/// Carries it out to its end, also where the client goes away that asked for it: with half of it done
/// the node would be neither in a cluster nor ready for another.
fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Answer<'static, T> {
    let done = unbroken::to_its_end(work);
    Box::pin(async move { done.await.expect("only a panic ends it before its end") })
}

impl LocalNode for Local {
    fn request(&self, request: Request) -> Answer<'_, Response> {
        Box::pin(async move {
            let mut again = true;
            loop {
                let member = as_manager(self.shared.settled_member().await)?;
                let answer = member.handle.request(request.clone(), REQUEST_LIMIT).await;
                let stopped = member.handle.status().ended == Some(Ended::Stopped);
                if answer.is_ok() || !stopped || !std::mem::take(&mut again) {
                    return answer;
                }
                // It starts anew, in another role perhaps: asked again, which is safe, the next one
                // knows.
                drop(member);
                self.shared.settled().await;
            }
        })
    }

    fn standing(&self) -> Standing {
        let mut standing = Standing::default();
        let Some(member) = self.shared.member() else { return standing };
        if member.is_locked() {
            standing.swarm = SwarmState::Locked;
            return standing;
        }
        let (membership, status) = (&member.membership, member.handle.status());
        standing.node = Some(membership.node.clone());
        standing.swarm = SwarmState::Active;
        if let Some(health) = status.health() {
            standing.warnings.push(format!("WARNING: {health}"));
            standing.swarm_error = health;
        }
        for health in [&status.address_health, &status.log_health].into_iter().flatten() {
            standing.warnings.push(format!("WARNING: {health}"));
        }
        if let Duty::Manager { store, .. } = &member.duty
            && let Some(failure) = store.failure()
        {
            standing.warnings.push(format!("WARNING: the log cannot be written: {failure}"));
        }
        let told = member.told.get();
        standing.node_address = host_of(&told);
        if let Duty::Manager { consensus, .. } = &member.duty {
            standing.manager_error = status.manager_health.clone().unwrap_or_default();
            standing.control_available = true;
            standing.leader = status.leader.clone();
            standing.last_entry =
                consensus.last_entry().map(|(term, index)| LastEntry { term, index });
            standing.managers = vec![(membership.node.clone(), told)];
        } else {
            if !status.connected && standing.swarm_error.is_empty() {
                standing.swarm_error = no_manager(&member.endpoint.unreached());
            }
            // Their ids are not a worker's to know: the addresses are what helps.
            let unknown = NodeId::from_bits(0);
            standing.managers =
                membership.managers.iter().map(|m| (unknown.clone(), m.clone())).collect();
        }
        standing
    }

    fn info(&self) -> BoxFuture<'_, Info> {
        Box::pin(self.describe())
    }

    fn swarm_init(&self, options: InitOptions) -> Answer<'_, NodeId> {
        to_its_end(swarm::init(Arc::clone(&self.shared), options))
    }

    fn swarm_join(&self, options: JoinOptions) -> Answer<'_, ()> {
        to_its_end(swarm::join(Arc::clone(&self.shared), options))
    }

    fn swarm_leave(&self, force: bool) -> Answer<'_, ()> {
        let shared = Arc::clone(&self.shared);
        to_its_end(async move { swarm::leave(&shared, force).await })
    }

    fn swarm_unlock(&self, key: String) -> Answer<'_, ()> {
        let shared = Arc::clone(&self.shared);
        to_its_end(async move { recovery::unlock(&shared, &key).await })
    }

    fn unlock_key(&self, cluster: &Cluster) -> String {
        cluster.unlock_key.as_ref().map(unlock_key_text).unwrap_or_default()
    }

    fn backup(&self, passphrase: String) -> Answer<'_, Vec<u8>> {
        Box::pin(backup::backup(&self.shared, passphrase))
    }

    fn restore(&self, options: RestoreOptions, file: Vec<u8>) -> Answer<'_, NodeId> {
        let shared = Arc::clone(&self.shared);
        to_its_end(async move { backup::restore(&shared, options, file).await })
    }

    fn join_token(&self, cluster: &Cluster, role: Role) -> String {
        let secret = match role {
            Role::Worker => cluster.tokens.worker,
            Role::Manager => cluster.tokens.manager,
        };
        TokenText { root_digest: cluster.root.digest, secret }.to_string()
    }

    fn next_root(
        &self,
        cluster: &Cluster,
        given: Option<(String, String)>,
    ) -> Result<RootRotation, Refusal> {
        swarm::next_root(cluster, given, self.shared.clock.date())
    }

    fn root_pem(&self, cluster: &Cluster) -> String {
        to_pem("CERTIFICATE", &cluster.root.certificate)
    }

    fn image_pull(&self, options: PullOptions) -> Answer<'_, BoxStream<Progress>> {
        Box::pin(async move {
            let reference = parse(&options.image)?;
            Ok(images::pull(Arc::clone(&self.shared), reference, options))
        })
    }

    fn image_load(
        &self,
        nodes: NodeSelector,
        archive: BoxStream<io::Result<Bytes>>,
    ) -> Answer<'_, BoxStream<Progress>> {
        Box::pin(async move {
            let targets = self.targets(nodes).await?;
            Ok(images::load(Arc::clone(&self.shared), targets, archive))
        })
    }

    fn image_resolve(
        &self,
        image: String,
        credential: Option<RegistryCredential>,
    ) -> Answer<'_, Resolved> {
        Box::pin(async move {
            let reference = parse(&image)?;
            images::resolve(&self.shared, &reference, credential.as_ref()).await
        })
    }

    fn registry_login(&self, registry: String, credential: RegistryCredential) -> Answer<'_, ()> {
        Box::pin(images::login(&self.shared, registry, credential))
    }

    fn containers(&self) -> Answer<'_, Vec<Container>> {
        Box::pin(self.list_containers(BTreeMap::new()))
    }

    fn containers_with_images(&self) -> Answer<'_, Vec<Container>> {
        Box::pin(async move {
            // A container is of use without the id of its image.
            let images = self.shared.containers.images().ids().await.unwrap_or_else(|error| {
                tracing::debug!(error = chain(&error), "the images of containers are not known");
                BTreeMap::new()
            });
            self.list_containers(images).await
        })
    }

    fn chore(&self, nodes: NodeSelector, chore: Chore) -> Answer<'_, Vec<NodeAnswer>> {
        Box::pin(async move {
            let targets = self.targets(nodes).await?;
            Ok(chores::everywhere(&self.shared, targets, chore).await)
        })
    }

    fn occurrences(&self) -> Answer<'_, Reading<Occurrence>> {
        let reading = self.shared.containers.teller().board().read();
        let busy = "too many clients follow the events of this node";
        let reading = reading.ok_or_else(|| Refusal::new(Class::Unavailable, busy));
        Box::pin(async move { reading })
    }

    fn logs(&self, options: LogOptions) -> Answer<'_, BoxStream<LogItem>> {
        Box::pin(async move {
            let member = self.shared.member().ok_or_else(not_in_swarm)?;
            let reader = logs::Reader {
                shared: Arc::clone(&self.shared),
                own: member.membership.node.clone(),
            };
            Ok(reader.read(options))
        })
    }

    fn exec_create(&self, place: Place, spec: ExecSpec) -> Answer<'_, String> {
        Box::pin(async move { self.execs.add(place, spec) })
    }

    fn exec_start(&self, id: String, options: StartOptions) -> Answer<'_, Started> {
        Box::pin(exec::start(&self.shared, self.execs.clone(), id, options))
    }

    fn exec_resize(&self, id: String, size: TerminalSize) -> Answer<'_, ()> {
        Box::pin(async move { self.execs.resize(&id, size) })
    }

    fn exec_state(&self, id: String) -> Answer<'_, ExecState> {
        Box::pin(async move { self.execs.show(&id) })
    }

    fn path_stat(&self, place: Place, path: String) -> Answer<'_, PathStat> {
        Box::pin(exec::stat(&self.shared, place, path))
    }

    fn pack(&self, place: Place, path: String) -> Answer<'_, (PathStat, Archive)> {
        Box::pin(exec::pack(&self.shared, place, path))
    }

    fn unpack(
        &self,
        place: Place,
        path: String,
        options: UnpackOptions,
        archive: Archive,
    ) -> Answer<'_, ()> {
        Box::pin(exec::unpack(&self.shared, place, path, options, archive))
    }

    fn usage(&self, place: Place, times: Option<u32>) -> Answer<'_, BoxStream<Usage>> {
        Box::pin(exec::usage(&self.shared, place, times))
    }

    fn processes(&self, place: Place, options: String) -> Answer<'_, ProcessTable> {
        Box::pin(exec::processes(&self.shared, place, options))
    }

    fn signal(&self, place: Place, number: u32) -> Answer<'_, ()> {
        Box::pin(ending::ask_signal(&self.shared, place, number))
    }

    fn stop(&self, place: Place, options: StopOptions) -> Answer<'_, ()> {
        Box::pin(ending::ask_stop(&self.shared, place, options))
    }

    fn end(
        &self,
        place: Place,
        removed: bool,
    ) -> Answer<'_, BoxFuture<'static, Result<ContainerExit, Refusal>>> {
        Box::pin(ending::ask_end(&self.shared, place, removed))
    }
}

fn parse(image: &str) -> Result<Reference, Refusal> {
    Reference::parse(image).map_err(|error| Refusal::new(Class::Invalid, error.to_string()))
}

/// Says that no manager answers, and what became of each that was asked.
fn no_manager(unreached: &BTreeMap<String, String>) -> String {
    let tries: Vec<String> =
        unreached.iter().map(|(address, why)| format!("{address}: {why}")).collect();
    let colon = if tries.is_empty() { "" } else { ": " };
    format!("no manager answers{colon}{}", tries.join("; "))
}

impl Local {
    async fn nodes(&self) -> Result<Vec<Node>, Refusal> {
        match self.request(Request::Read(Query::Nodes)).await? {
            Response::Nodes(nodes) => Ok(nodes),
            _ => Err(Refusal::new(Class::Internal, "the leader answered oddly")),
        }
    }

    /// Returns which nodes an archive goes to.
    async fn targets(&self, selector: NodeSelector) -> Result<Vec<Target>, Refusal> {
        let names = match selector {
            NodeSelector::Local => return Ok(vec![Target::Here]),
            NodeSelector::All => None,
            NodeSelector::Named(names) => Some(names),
        };
        let own = self.shared.member().map(|member| member.membership.node.clone());
        let nodes = self.nodes().await?;
        let target = |node: &Node| {
            if Some(&node.id) == own.as_ref() {
                Target::Here
            } else {
                Target::There(node.id.clone(), node.description.hostname.clone())
            }
        };
        let Some(names) = names else {
            let ready = nodes.iter().filter(|node| node.status.state == NodeState::Ready);
            return Ok(ready.map(target).collect());
        };
        let mut targets = Vec::new();
        for name in &names {
            let found: Vec<&Node> = nodes
                .iter()
                .filter(|node| node.id.as_str() == name || node.description.hostname == *name)
                .collect();
            match found.as_slice() {
                [] => {
                    return Err(Refusal::new(Class::NotFound, format!("node {name} not found")));
                }
                [node] => targets.push(target(node)),
                many => {
                    let ids: Vec<&str> = many.iter().map(|node| node.id.as_str()).collect();
                    let text = format!("node {name} is ambiguous: {}", ids.join(", "));
                    return Err(Refusal::new(Class::Invalid, text));
                }
            }
        }
        Ok(targets)
    }

    async fn describe(&self) -> Info {
        let containers = &self.shared.containers;
        let machine = containers.machine();
        let runtime = containers.runtime();
        let (observed, (images, (platform, version))) = zip(
            within(CONTAINERD_LIMIT, runtime.inventory()),
            zip(
                within(CONTAINERD_LIMIT, images::list(&self.shared)),
                zip(
                    within(CONTAINERD_LIMIT, containers.platform()),
                    within(CONTAINERD_LIMIT, runtime.version()),
                ),
            ),
        )
        .await;
        let observed = observed.and_then(Result::ok).unwrap_or_default();
        let running = observed
            .iter()
            .filter(|container| matches!(container.phase, crate::agent::Phase::Running { .. }))
            .count();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let images = images.and_then(Result::ok).map_or(0, |images| count(images.len()));
        let registry = &self.shared.config.registry;
        let mut info = Info {
            hostname: machine.hostname.clone(),
            platform: platform
                .unwrap_or_else(|| Platform::normalized("linux", &machine.architecture, "")),
            resources: machine.resources,
            cgroups: containers.cgroups(),
            labels: self.shared.config.engine_labels.clone(),
            containers_running: count(running),
            containers_stopped: count(observed.len() - running),
            images,
            kernel: machine.kernel.clone(),
            operating_system: machine.operating_system.clone(),
            os_version: machine.os_version.clone(),
            containerd_version: version.and_then(Result::ok).unwrap_or_default(),
            has_apparmor: matches!(apparmor::here(), AppArmor::Profile(_)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data_dir: self.shared.options.data_dir.to_string_lossy().into_owned(),
            machine_id: machine.machine_id.clone(),
            plain_http_registries: registry.plain_http.clone(),
            mirrors: registry.mirrors.get("docker.io").cloned().unwrap_or_default(),
            standing: self.standing(),
            warnings: Vec::new(),
        };
        if info.containerd_version.is_empty() {
            info.warnings.push("WARNING: containerd does not answer".to_owned());
        }
        let runtime = containers.runtime().clone();
        if let Some(error) = unblock(move || runtime.cannot_make()).await {
            info.warnings.push(format!("WARNING: no container can be made: {error}"));
        }
        if !info.cgroups.memory {
            let text =
                "WARNING: the kernel cannot limit memory: its memory cgroup controller is off";
            info.warnings.push(text.to_owned());
        }
        info
    }

    /// Lists the containers of this node's tasks; `images` are ids by the names of records.
    async fn list_containers(
        &self,
        images: BTreeMap<String, String>,
    ) -> Result<Vec<Container>, Refusal> {
        let unavailable =
            |failure: crate::agent::Failure| Refusal::new(Class::Unavailable, failure.message);
        let list = self.shared.containers.runtime().list().await.map_err(unavailable)?;
        let tasks = match self.shared.member() {
            Some(member) => member.handle.agent_tasks(TASKS_LIMIT).await?,
            None => Vec::new(),
        };
        let tasks: BTreeMap<_, _> =
            tasks.into_iter().map(|local| (local.task.id.clone(), local)).collect();
        let shown = list.into_iter().filter_map(|info| {
            let local = tasks.get(&info.task)?;
            Some(self.container(info, local, &images))
        });
        Ok(shown.collect())
    }

    /// Returns the container of a task of this node; `images` are ids by the names of records.
    fn container(
        &self,
        info: ContainerInfo,
        local: &LocalTask,
        images: &BTreeMap<String, String>,
    ) -> Container {
        let LocalTask { task, status, health } = local;
        let known = Container::of_task(task, status);
        let running = known.state == ContainerState::Running;
        let address = self.shared.containers.network().address(&task.id);
        Container {
            id: info.container,
            image_id: images.get(&info.image).cloned().unwrap_or_default(),
            command: info.command,
            created: info.created,
            labels: info.labels,
            addresses: address.into_iter().collect(),
            health: health.clone().filter(|_| running),
            log_path: info.log_path.to_string_lossy().into_owned(),
            mounts: info.mounts.into_iter().map(|mount| self.mount_point(mount)).collect(),
            out_of_memory: matches!(
                info.phase,
                crate::agent::Phase::Exited { out_of_memory: true, .. }
            ),
            ..known
        }
    }

    /// Tells what a mount is by where its files are.
    fn mount_point(&self, mount: Mounted) -> MountPoint {
        let Mounted { source, target, read_only } = mount;
        let Some(source) = source else {
            let (name, source) = (String::new(), String::new());
            return MountPoint { kind: "tmpfs", name, source, target, read_only };
        };
        let data = &self.shared.options.data_dir;
        let path = std::path::Path::new(&source);
        let volume = path.strip_prefix(data.join("volumes")).ok();
        let name = volume.and_then(|rest| rest.iter().next()).unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        // A container's own volumes lie with its log.
        let is_volume = volume.is_some() || path.starts_with(data.join("containers"));
        let kind = if is_volume { "volume" } else { "bind" };
        MountPoint { kind, name, source, target, read_only }
    }
}
