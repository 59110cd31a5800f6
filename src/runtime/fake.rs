//! A runtime of virtual containers, for the simulator and for tests.
//!
//! Deterministic: time comes in as an argument, chance from the seed. The machine is this value:
//! whoever holds it lets a daemon crash by forgetting what it was waiting for, while the
//! containers in here live on. To carry out an operation, wait for [`Fake::delay`], then call
//! [`Fake::poll`] and the method of its name: one whose wait is cut short by a crash has not
//! happened.

use crate::{
    agent::{Event, Failure, Observed, Operation, Phase, Prepared, ProbeResult},
    types::{
        Date, ImageHealth, Moment, NetworkMode, PortConfig, PortProtocol, PortStatus, PublishMode,
        Task, TaskId,
    },
    util::random::draw,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What a signal-ended container exits with: 128 and SIGKILL.
const KILLED: i32 = 137;

/// The first host port given to a task that leaves the choice to the node.
const DYNAMIC_PORT_FIRST: u16 = 32_768;

/// An image of this name cannot be had.
const MISSING: &str = "missing";

/// The containers of an image of this name fail soon after they were started.
const CRASHING: &str = "crashing";

const CRASHING_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// An image of this name takes [`SLOW_PREPARE`] to be had.
const SLOW: &str = "slow";

/// Longer than a service's tasks are waited for, unless its spec says otherwise.
const SLOW_PREPARE: Duration = Duration::from_secs(1_000);

/// How slow and how faulty the runtime is. Chances are in thousandths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// Preparing takes between these.
    pub prepare: (Duration, Duration),
    /// Starting takes between these; so do removing and an inventory.
    pub start: (Duration, Duration),
    /// What an inventory says is that old when it is told.
    pub inventory: (Duration, Duration),
    /// A container that is asked to stop takes between these, at most its grace period.
    pub stop: (Duration, Duration),
    /// The chance that an operation fails and may be tried again.
    pub temporary: u32,
    /// The chance that preparing or starting fails for good.
    pub permanent: u32,
    /// The chance that a container ends by itself.
    pub crash: u32,
    /// When it does, it has run for between these.
    pub crash_after: (Duration, Duration),
    /// What it then exits with.
    pub exit_code: i32,
    /// The container of a job's task that does not crash ends well between these.
    pub job: (Duration, Duration),
    /// The chance that a probe fails although the container is well.
    pub sick: u32,
    /// A probe takes between these, at most its timeout.
    pub probe: (Duration, Duration),
}

impl Default for Faults {
    /// A small board on a good day.
    fn default() -> Self {
        Self {
            prepare: (Duration::from_millis(200), Duration::from_secs(2)),
            start: (Duration::from_millis(20), Duration::from_millis(500)),
            inventory: (Duration::ZERO, Duration::from_millis(100)),
            stop: (Duration::from_millis(10), Duration::from_secs(1)),
            temporary: 0,
            permanent: 0,
            crash: 0,
            crash_after: (Duration::from_secs(1), Duration::from_secs(600)),
            exit_code: 1,
            job: (Duration::from_secs(1), Duration::from_secs(10)),
            sick: 0,
            probe: (Duration::from_millis(10), Duration::from_millis(300)),
        }
    }
}

/// How a virtual container is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Life {
    Created,
    Running { since: Moment, pid: u32, ports: Vec<PortStatus>, ends: Option<(Moment, i32)> },
    Exited { code: Option<i32>, date: Option<Date> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Virtual {
    life: Life,
    /// The host ports it takes when it runs.
    wanted: Vec<PortConfig>,
}

/// The virtual containers of one machine.
#[derive(Debug, Clone)]
pub struct Fake {
    faults: Faults,
    random: u64,
    containers: BTreeMap<TaskId, Virtual>,
    /// Whether the runtime answers. Containers run on without it.
    up: bool,
    next_pid: u32,
    /// Times each task was started, for "a task runs at most once".
    starts: BTreeMap<TaskId, u32>,
    /// Whether a probe of each task has ever succeeded, for "none with a check runs before", and
    /// how many have failed since.
    probes: BTreeMap<TaskId, (bool, u32)>,
}

impl Fake {
    /// Makes a machine without containers.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            faults,
            random: seed,
            containers: BTreeMap::new(),
            up: true,
            next_pid: 1_000,
            starts: BTreeMap::new(),
            probes: BTreeMap::new(),
        }
    }

    /// Changes how slow and faulty the runtime is from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// Returns how long the operation takes.
    pub fn delay(&mut self, operation: &Operation) -> Duration {
        let range = match operation {
            Operation::Prepare { task } if image_name(task) == SLOW => return SLOW_PREPARE,
            Operation::Prepare { .. } => self.faults.prepare,
            Operation::Stop { grace, .. } => {
                let (least, most) = self.faults.stop;
                (least.min(*grace), most.min(*grace))
            }
            Operation::Probe { timeout, .. } => {
                let (least, most) = self.faults.probe;
                (least.min(*timeout), most.min(*timeout))
            }
            Operation::Start { .. }
            | Operation::Remove { .. }
            | Operation::TakeInventory { .. } => self.faults.start,
        };
        self.between(range)
    }

    /// Returns how long the answer to an operation is under way.
    pub fn lag(&mut self, operation: &Operation) -> Duration {
        match operation {
            Operation::TakeInventory { .. } => self.between(self.faults.inventory),
            _ => Duration::ZERO,
        }
    }

    /// Returns when the next container ends by itself.
    #[must_use]
    pub fn next_exit(&self) -> Option<Moment> {
        let ends = self.containers.values().filter_map(|container| match &container.life {
            Life::Running { ends, .. } => ends.map(|(at, _)| at),
            Life::Created | Life::Exited { .. } => None,
        });
        ends.min()
    }

    /// Lets containers end whose time has come; returns what a daemon that listens is told of it.
    pub fn poll(&mut self, now: Moment, date: Date) -> Vec<Event> {
        let ended = self.settle(now, date);
        if !self.up {
            return Vec::new();
        }
        let exited = |task: TaskId| {
            let phase = self.phase(&task)?;
            Some(Event::Exited { task, phase })
        };
        ended.into_iter().filter_map(exited).collect()
    }

    /// Kills a running container; returns what a daemon that listens is told.
    pub fn kill(&mut self, task: &TaskId, date: Date) -> Option<Event> {
        let container = self.containers.get_mut(task)?;
        if !matches!(container.life, Life::Running { .. }) {
            return None;
        }
        container.life = Life::Exited { code: Some(KILLED), date: Some(date) };
        let phase = self.phase(task).filter(|_| self.up)?;
        Some(Event::Exited { task: task.clone(), phase })
    }

    /// The machine restarts: what ran has ended, and nobody saw how.
    pub fn reboot(&mut self) {
        self.up = true;
        for container in self.containers.values_mut() {
            if matches!(container.life, Life::Running { .. }) {
                container.life = Life::Exited { code: None, date: None };
            }
        }
    }

    /// The runtime dies; its containers run on. Returns what a daemon that listens is told.
    pub fn lose_runtime(&mut self) -> Event {
        self.up = false;
        Event::RuntimeLost
    }

    /// The runtime is back. Returns what a daemon that listens is told.
    pub fn restore_runtime(&mut self, now: Moment, date: Date) -> Event {
        self.up = true;
        self.settle(now, date);
        Event::RuntimeFound
    }

    /// Returns the tasks whose containers run.
    #[must_use]
    pub fn running(&self) -> BTreeSet<TaskId> {
        let running =
            self.containers.iter().filter(|(_, c)| matches!(c.life, Life::Running { .. }));
        running.map(|(task, _)| task.clone()).collect()
    }

    /// Tells whether the task has a container that was not started yet.
    #[must_use]
    pub fn is_prepared(&self, task: &TaskId) -> bool {
        self.containers.get(task).is_some_and(|container| container.life == Life::Created)
    }

    /// Returns how often the task's container was started; never more than once, or it is a
    /// defect.
    #[must_use]
    pub fn starts(&self, task: &TaskId) -> u32 {
        self.starts.get(task).copied().unwrap_or_default()
    }

    /// Tells whether a probe of the task's container has ever succeeded.
    #[must_use]
    pub fn was_well(&self, task: &TaskId) -> bool {
        self.probes.get(task).is_some_and(|(well, _)| *well)
    }

    /// Returns how many probes of the task's container failed since the last that succeeded.
    #[must_use]
    pub fn failed_probes(&self, task: &TaskId) -> u32 {
        self.probes.get(task).map_or(0, |(_, failed)| *failed)
    }

    /// Tells whether there is any container, whatever its state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    fn draw(&mut self) -> u64 {
        draw(&mut self.random)
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        self.draw() % 1_000 < u64::from(thousandths)
    }

    fn between(&mut self, (least, most): (Duration, Duration)) -> Duration {
        let span = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
        least + Duration::from_nanos(self.draw() % span.saturating_add(1).max(1))
    }

    fn answers(&mut self, what: &str) -> Result<(), Failure> {
        if !self.up {
            return Err(no_answer(what));
        }
        if self.chance(self.faults.temporary) {
            let message = format!("cannot {what}: try again");
            return Err(Failure { message, temporary: true });
        }
        Ok(())
    }

    /// Makes the task's container.
    ///
    /// # Errors
    ///
    /// By chance, and where the image cannot be had.
    pub fn prepare(&mut self, task: &Task) -> Result<Prepared, Failure> {
        self.answers("prepare")?;
        if image_name(task) == MISSING || self.chance(self.faults.permanent) {
            let message = format!("No such image: {}", task.spec.container.image);
            return Err(Failure { message, temporary: false });
        }
        let wanted = match task.spec.network {
            NetworkMode::Bridge => task.endpoint.ports.clone(),
            NetworkMode::Host | NetworkMode::None => Vec::new(),
        };
        let made = Virtual { life: Life::Created, wanted };
        self.containers.entry(task.id.clone()).or_insert(made);
        Ok(Prepared { container: container_id(&task.id), health: ImageHealth::default() })
    }

    /// Starts the task's container; returns its process and the host ports it holds.
    ///
    /// # Errors
    ///
    /// By chance, and where there is none that could be started or a port is taken.
    pub fn start(&mut self, now: Moment, task: &Task) -> Result<(u32, Vec<PortStatus>), Failure> {
        self.answers("start")?;
        if self.chance(self.faults.permanent) {
            let message = "exec format error".to_owned();
            return Err(Failure { message, temporary: false });
        }
        let Some(container) = self.containers.get(&task.id) else {
            return Err(Failure { message: "no such container".to_owned(), temporary: false });
        };
        match &container.life {
            Life::Running { pid, ports, .. } => return Ok((*pid, ports.clone())),
            Life::Exited { .. } => {
                let message = "the container has ended".to_owned();
                return Err(Failure { message, temporary: false });
            }
            Life::Created => {}
        }
        let ports = self.bind(&task.id)?;
        let crashes = self.chance(self.faults.crash);
        let after = self.between(self.faults.crash_after);
        let mut ends = crashes.then_some((now + after, self.faults.exit_code));
        if task.is_job() && !crashes {
            ends = Some((now + self.between(self.faults.job), 0));
        }
        if image_name(task) == CRASHING {
            ends = Some((now + self.between(CRASHING_AFTER), self.faults.exit_code));
        }
        self.next_pid += 1;
        let pid = self.next_pid;
        *self.starts.entry(task.id.clone()).or_default() += 1;
        let container = self.containers.get_mut(&task.id).expect("looked up above");
        container.life = Life::Running { since: now, pid, ports: ports.clone(), ends };
        Ok((pid, ports))
    }

    /// Runs a probe: `after N` is well once the container has run for so many seconds, `until N` as
    /// long as it has not, `never` never.
    ///
    /// # Errors
    ///
    /// By chance, and where the container does not run.
    pub fn probe(
        &mut self,
        now: Moment,
        task: &TaskId,
        command: &[String],
    ) -> Result<ProbeResult, Failure> {
        self.answers("probe")?;
        let sick = self.chance(self.faults.sick);
        let Some(Life::Running { since, .. }) = self.containers.get(task).map(|c| &c.life) else {
            return Err(Failure { message: "the container does not run".into(), temporary: true });
        };
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let ran = now.since(*since).as_secs();
        let number = |text: &str| text.parse::<u64>().unwrap_or_default();
        let well = match words.as_slice() {
            ["after", seconds] => ran >= number(seconds),
            ["until", seconds] => ran < number(seconds),
            _ => false,
        };
        let (was_well, failed) = self.probes.entry(task.clone()).or_default();
        if well && !sick {
            (*was_well, *failed) = (true, 0);
            return Ok(ProbeResult { code: Some(0), output: String::new() });
        }
        *failed += 1;
        let output = if sick { "sick" } else { "not well" };
        Ok(ProbeResult { code: Some(1), output: output.to_owned() })
    }

    /// Takes the host ports that the task wants, as the kernel would.
    fn bind(&self, task: &TaskId) -> Result<Vec<PortStatus>, Failure> {
        let mut taken: BTreeSet<(PortProtocol, u16)> = BTreeSet::new();
        for container in self.containers.values() {
            if let Life::Running { ports, .. } = &container.life {
                taken.extend(ports.iter().map(|held| (held.port.protocol, held.port.published)));
            }
        }
        let wanted = self.containers.get(task).map_or(Vec::new(), |c| c.wanted.clone());
        let mut held = Vec::new();
        for mut port in wanted.into_iter().filter(|port| port.mode == PublishMode::Host) {
            if port.published == 0 {
                let free = |at: &u16| !taken.contains(&(port.protocol, *at));
                port.published = (DYNAMIC_PORT_FIRST..=u16::MAX).find(free).unwrap_or_default();
            }
            if !taken.insert((port.protocol, port.published)) {
                let message = format!("port {} is already in use", port.published);
                return Err(Failure { message, temporary: true });
            }
            held.push(PortStatus { port });
        }
        Ok(held)
    }

    /// Ends the task's container; returns how it ended.
    ///
    /// # Errors
    ///
    /// By chance.
    pub fn stop(&mut self, task: &TaskId, date: Date) -> Result<Phase, Failure> {
        self.answers("stop")?;
        if let Some(container) = self.containers.get_mut(task)
            && !matches!(container.life, Life::Exited { .. })
        {
            container.life = Life::Exited { code: Some(0), date: Some(date) };
        }
        let none = Phase::Exited { code: None, date: None, out_of_memory: false };
        Ok(self.phase(task).unwrap_or(none))
    }

    /// Removes the task's container.
    ///
    /// # Errors
    ///
    /// By chance.
    pub fn remove(&mut self, task: &TaskId) -> Result<(), Failure> {
        self.answers("remove")?;
        let _container = self.containers.remove(task);
        Ok(())
    }

    fn settle(&mut self, now: Moment, date: Date) -> Vec<TaskId> {
        let mut ended = Vec::new();
        for (task, container) in &mut self.containers {
            if let Life::Running { ends: Some((at, code)), .. } = container.life
                && at <= now
            {
                container.life = Life::Exited { code: Some(code), date: Some(date) };
                ended.push(task.clone());
            }
        }
        ended
    }

    fn phase(&self, task: &TaskId) -> Option<Phase> {
        Some(match &self.containers.get(task)?.life {
            Life::Created => Phase::Created,
            Life::Running { pid, ports, .. } => Phase::Running { pid: *pid, ports: ports.clone() },
            Life::Exited { code, date } => {
                Phase::Exited { code: *code, date: *date, out_of_memory: false }
            }
        })
    }

    /// Returns every container.
    ///
    /// # Errors
    ///
    /// The runtime is down.
    pub fn inventory(&self) -> Result<Vec<Observed>, Failure> {
        if !self.up {
            return Err(no_answer("take an inventory"));
        }
        let observe = |task: &TaskId| {
            let phase = self.phase(task)?;
            let health = ImageHealth::default();
            Some(Observed { task: task.clone(), container: container_id(task), phase, health })
        };
        Ok(self.containers.keys().filter_map(observe).collect())
    }
}

fn no_answer(to: &str) -> Failure {
    Failure { message: format!("cannot {to}: containerd does not answer"), temporary: true }
}

/// Returns the image's name without its tag.
fn image_name(task: &Task) -> &str {
    let image = task.spec.container.image.as_str();
    image.split_once(':').map_or(image, |(name, _)| name)
}

fn container_id(task: &TaskId) -> String {
    format!("c-{task}")
}
