//! The containers of this node: runtime, images and network put together.

use super::{collector::Collector, machine::describe::Machine, teller::Teller};
use crate::{
    agent::{Event, Failure, Observed, Phase, Prepared, ProbeResult},
    network::Network,
    node::ports::Workload,
    runtime::{self, ContainerSetup, ExecError, ProbeOutput, Runtime, containerd::image::Images},
    types::{
        CgroupSupport, EngineDescription, HealthState, Labels, NodeDescription, Platform,
        PortStatus, Task, TaskId, image::Reference,
    },
    util::error::chain,
};
use async_channel::{Receiver, Sender};
use futures_lite::FutureExt as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How many events wait for the node's loop. The loop takes them at once; a burst is all
/// containers of a node ending together.
const EVENTS_MAX: usize = 256;

/// How long to wait before containerd is asked again what this machine runs.
const DESCRIBE_AGAIN: Duration = Duration::from_secs(2);

/// Everything that a task's container needs, by the real parts. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Containers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    runtime: Runtime,
    images: Images,
    collector: Arc<Collector>,
    network: Network,
    machine: Machine,
    engine_labels: Labels,
    cgroup_parent: String,
    teller: Arc<Teller>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    /// Whether the network has been told which tasks are still there since this process began.
    retained: smol::lock::Mutex<bool>,
}

impl Containers {
    /// Puts the parts together; they begin to tell what happens at once.
    pub(super) fn new(
        runtime: Runtime,
        images: Images,
        collector: Arc<Collector>,
        network: Network,
        machine: Machine,
        engine_labels: Labels,
        cgroup_parent: String,
    ) -> Self {
        let (sender, events) = async_channel::bounded(EVENTS_MAX);
        let teller = Arc::new(Teller::new());
        let told = Arc::clone(&teller);
        runtime.volumes().tell(move |news| told.volume(&news));
        let inner = Inner {
            runtime,
            images,
            collector,
            network,
            machine,
            engine_labels,
            cgroup_parent,
            teller,
            events,
            sender,
            retained: smol::lock::Mutex::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Forwards what happens by itself, until the returned task is dropped.
    pub(super) fn watch(&self) -> smol::Task<()> {
        let this = self.clone();
        smol::spawn(async move { this.forward().or(this.describe()).await })
    }

    async fn forward(&self) {
        let events = self.inner.runtime.events();
        while let Ok(event) = events.recv().await {
            let event = match event {
                Event::Exited { task, phase } => {
                    self.inner.teller.died(&task, &phase);
                    self.inner.network.unpublish(&task).await;
                    Event::Exited { task, phase }
                }
                other => other,
            };
            if self.inner.sender.send(event).await.is_err() {
                return;
            }
        }
    }

    /// Says what the node is and holds, at first and whenever its images change.
    async fn describe(&self) {
        let changes = self.inner.images.changes();
        loop {
            match self.description().await {
                Ok(event) => {
                    if self.inner.sender.send(event).await.is_err() || changes.recv().await.is_err()
                    {
                        return;
                    }
                }
                Err(failure) => {
                    tracing::warn!(error = failure.message, "cannot describe this node yet");
                    smol::Timer::after(DESCRIBE_AGAIN).await;
                }
            }
        }
    }

    async fn description(&self) -> Result<Event, Failure> {
        let Inner { runtime, images, machine, engine_labels, .. } = &*self.inner;
        let platform = runtime.platform().await?;
        let runtime_version = runtime.version().await?;
        let images = images
            .held()
            .await
            .map_err(|error| Failure { message: chain(&error), temporary: true })?;
        let description = NodeDescription {
            hostname: machine.hostname.clone(),
            platform,
            resources: machine.resources,
            generic: machine.generic.clone(),
            engine: EngineDescription {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                labels: engine_labels.clone(),
                runtime_version,
            },
            cgroups: runtime::cgroups(),
            machine_id: machine.machine_id.clone(),
        };
        Ok(Event::Described { description: Box::new(description), images })
    }

    /// Returns what this node would say of itself, without asking containerd where it is away.
    pub(super) async fn describe_now(&self) -> NodeDescription {
        match self.description().await {
            Ok(Event::Described { description, .. }) => *description,
            _ => NodeDescription {
                hostname: self.inner.machine.hostname.clone(),
                platform: self.platform().await,
                resources: self.inner.machine.resources,
                generic: self.inner.machine.generic.clone(),
                engine: EngineDescription {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    labels: self.inner.engine_labels.clone(),
                    runtime_version: String::new(),
                },
                cgroups: self.cgroups(),
                machine_id: self.inner.machine.machine_id.clone(),
            },
        }
    }

    /// Returns the platform whose images run here; the kernel's word where containerd is away.
    pub(super) async fn platform(&self) -> Platform {
        match self.inner.runtime.platform().await {
            Ok(platform) => platform,
            Err(_) => Platform::normalized("linux", &self.inner.machine.architecture, ""),
        }
    }

    /// Returns what the kernel can limit.
    #[expect(clippy::unused_self, reason = "it is asked of the containers, not of the module")]
    pub(super) fn cgroups(&self) -> CgroupSupport {
        runtime::cgroups()
    }

    /// Removes the group that the containers were in.
    pub(super) fn remove_cgroup(&self) {
        runtime::remove_cgroup(&self.inner.cgroup_parent);
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    pub(super) fn images(&self) -> &Images {
        &self.inner.images
    }

    pub(super) fn network(&self) -> &Network {
        &self.inner.network
    }

    /// Returns what tells users what happens here.
    pub(super) fn teller(&self) -> &Arc<Teller> {
        &self.inner.teller
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.inner.machine
    }

    /// The first time, tells the network which tasks are left, so that it takes its ports again and
    /// clears away what belongs to no task.
    async fn retain(&self, containers: &[Observed]) {
        let mut retained = self.inner.retained.lock().await;
        if *retained {
            return;
        }
        for info in self.inner.runtime.list().await.unwrap_or_default() {
            self.inner.teller.adopt(&info);
        }
        self.inner.network.retain(&containers.iter().map(|c| c.task.clone()).collect()).await;
        *retained = true;
    }

    async fn make(&self, task: &Task) -> Result<Prepared, Failure> {
        let Inner { runtime, images, network, .. } = &*self.inner;
        let setup = network.prepare(task).await?;
        let platform = runtime.platform().await?;
        let container = &task.spec.container;
        let credential = task.spec.credential.as_ref();
        let wanted = match &task.spec.pin {
            // Pinned to what nodes hold: the same content, whatever the tag means by now.
            Some(pin) if !container.image.contains('@') => {
                format!("{}@{}", container.image, pin.digest)
            }
            _ => container.image.clone(),
        };
        let pulled = AtomicBool::new(false);
        let note = |step: runtime::image::Progress| {
            // The first step after the registry has answered.
            if step.step == runtime::image::Step::PullingLayer {
                pulled.store(true, Ordering::Relaxed);
            }
        };
        let image = images.ensure(&wanted, credential, &platform, note).await?;
        self.inner.collector.used(&image.digest).await;
        if pulled.into_inner()
            && let Ok(reference) = Reference::parse(&wanted)
        {
            self.inner.teller.pulled(&reference);
        }
        let setup = ContainerSetup {
            netns: setup.netns,
            hostname: setup.hostname,
            hosts: setup.hosts,
            resolv_conf: setup.resolv_conf,
            hostname_file: setup.hostname_file,
            cgroup_parent: self.inner.cgroup_parent.clone(),
        };
        let container = runtime.prepare(task, &setup, &image).await?;
        // Only what is told of it would be missing.
        if let Ok(Some(info)) = runtime.info(&task.id).await {
            self.inner.teller.created(&info);
        }
        Ok(container)
    }
}

impl Workload for Containers {
    /// Where it fails, the network that was made for the task goes too; one that was there before
    /// may be that of a container that runs.
    async fn prepare(&self, task: &Task) -> Result<Prepared, Failure> {
        let network = &self.inner.network;
        let was_known = network.knows(&task.id);
        let made = self.make(task).await;
        if made.is_err()
            && !was_known
            && let Err(failure) = network.remove(&task.id).await
        {
            tracing::warn!(task = %task.id, "a task's network is left: {}", failure.message);
        }
        made
    }

    async fn start(&self, task: &Task) -> Result<(u32, Vec<PortStatus>), Failure> {
        let ports = self.inner.network.publish(task).await?;
        match self.inner.runtime.start(task).await {
            Ok(pid) => {
                self.inner.teller.started(&task.id);
                Ok((pid, ports))
            }
            Err(failure) => {
                self.inner.network.unpublish(&task.id).await;
                Err(failure)
            }
        }
    }

    async fn stop(&self, task: &TaskId, signal: &str, grace: Duration) -> Result<Phase, Failure> {
        let teller = &self.inner.teller;
        let (runs, begun) = (teller.runs(task), Instant::now());
        teller.stopping(task, signal);
        let phase = self.inner.runtime.stop(task, signal, grace).await?;
        if runs {
            teller.stopped(task, &phase, begun.elapsed(), grace);
        }
        self.inner.network.unpublish(task).await;
        Ok(phase)
    }

    async fn remove(&self, task: &TaskId) -> Result<(), Failure> {
        self.inner.runtime.remove(task).await?;
        self.inner.teller.removed(task);
        self.inner.network.remove(task).await
    }

    async fn inventory(&self) -> Result<Vec<Observed>, Failure> {
        let mut containers = self.inner.runtime.inventory().await.inspect_err(|failure| {
            tracing::debug!(error = failure.message, "containerd does not answer");
        })?;
        self.retain(&containers).await;
        let network = &self.inner.network;
        for container in &mut containers {
            match &mut container.phase {
                Phase::Running { ports, .. } => *ports = network.ports(&container.task),
                Phase::Exited { .. } => {
                    self.inner.teller.died(&container.task, &container.phase);
                    network.unpublish(&container.task).await;
                }
                Phase::Created => {}
            }
        }
        Ok(containers)
    }

    async fn probe(
        &self,
        task: &TaskId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ProbeResult, Failure> {
        match self.inner.runtime.probe(task, command, timeout).await {
            Ok(ProbeOutput { code, output }) => {
                let output = String::from_utf8_lossy(&output).into_owned();
                Ok(ProbeResult { code, output })
            }
            // It has ended meanwhile, which is told in another way.
            Err(error @ (ExecError::NoContainer(_) | ExecError::NotRunning(_))) => {
                Err(Failure { message: error.to_string(), temporary: true })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&self, task: &TaskId, state: HealthState) {
        tracing::info!(%task, %state, "the container's health changed");
        self.inner.teller.container(task, &format!("health_status: {state}"), &[]);
    }

    fn events(&self) -> Receiver<Event> {
        self.inner.events.clone()
    }
}
