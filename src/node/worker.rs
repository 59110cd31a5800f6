//! The worker loop: owns the agent, and carries out what it wants done.
//!
//! Knows the order of things: what has to survive is on disk before anything that follows from it
//! is done or said; one task's operations run in order. It takes no decision about containers.
//!
//! A disk that is full or does not answer ends nothing: containers run on, heartbeats go on, and
//! whatever would follow from what is not written waits. A disk that is broken ends the node.

mod lanes;
mod outbox;
#[cfg(test)]
mod tests;
mod waiters;

use super::{
    Ended, LocalTask,
    handle::{Shared, WorkerCall},
    panic_message,
    ports::{AgentDisk, DiskError, Host, Peers, Workload},
    wait,
};
use crate::{
    agent::{self, Action, Agent, Event, Failure, Operation, Record},
    types::{FromManager, FromWorker, Moment},
};
use async_channel::{Receiver, Sender};
use futures_util::{
    FutureExt as _,
    future::{AbortRegistration, Abortable},
};
use lanes::{Job, Key, Lanes, RUNNING_MAX};
use outbox::Outbox;
use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use waiters::Waiters;

/// How many events are taken in one turn before deadlines are looked at again: a step is
/// microseconds, so a turn stays far below a heartbeat.
const DRAIN_MAX: usize = 64;

/// The wait before a failed commit is tried again; doubles up to [`WRITE_RETRY_MAX`].
const WRITE_RETRY: Duration = Duration::from_millis(250);

/// A full disk is mended by a person or a log rotation, so asking every ten seconds is enough.
const WRITE_RETRY_MAX: Duration = Duration::from_secs(10);

/// From when on a commit that does not return is worth a message: SD cards stall for seconds.
const WRITE_SLOW: Duration = Duration::from_secs(10);

/// The backstop for an operation that has a limit of its own or none: twelve hours is a large image
/// over a very slow link. Whoever carries it out knows better limits and keeps to them.
const OPERATION_LIMIT: Duration = Duration::from_secs(12 * 3_600);

/// The least time between two ticks: a deadline that a step does not move must not become a loop.
const TICK_FLOOR: Duration = Duration::from_millis(10);

/// What the loop works on.
#[derive(Debug)]
pub(super) struct Ports<H, D, P, W> {
    pub(super) host: H,
    pub(super) disk: D,
    pub(super) peers: P,
    pub(super) workload: W,
}

/// The loop's ends of its channels.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) calls: Receiver<WorkerCall>,
    pub(super) inputs: Receiver<Input>,
    /// Closed when the node ends.
    pub(super) stop: Receiver<()>,
}

/// What comes from a manager.
#[derive(Debug)]
pub(super) enum Input {
    Message(FromManager),
    Connected,
    Disconnected,
}

/// What came of something that the loop began.
#[derive(Debug)]
enum News {
    Written(Result<(), DiskError>),
    /// An operation ended; without an event where it was ended.
    Done {
        lane: Key,
        number: u64,
        event: Option<Event>,
    },
}

#[derive(Debug)]
enum Wake {
    Stop,
    News(News),
    Input(Input),
    Workload(Event),
    Call(WorkerCall),
    Deadline,
}

/// The commit under way.
#[derive(Debug, Default)]
struct Writing {
    /// How often it failed in a row.
    failures: u32,
    /// When to try again, after a failure.
    retry: Option<Moment>,
    /// From when on it is slow, while it runs.
    slow: Option<Moment>,
}

struct Worker<H, D, P, W> {
    ports: Ports<H, D, P, W>,
    shared: Arc<Shared>,
    agent: Agent,
    outbox: Outbox,
    writing: Writing,
    lanes: Lanes,
    waiters: Waiters,
    last_tick: Moment,
    news: Sender<News>,
    ended: Option<Ended>,
}

/// Runs the loop until the node ends.
pub(super) async fn run<H: Host, D: AgentDisk, P: Peers, W: Workload>(
    ports: Ports<H, D, P, W>,
    options: agent::Options,
    shared: Arc<Shared>,
    channels: Channels,
) -> Ended {
    let stopped = async {
        let _closed = channels.stop.recv().await;
        Err(Ended::Stopped)
    };
    let loaded = futures_lite::future::or(load(&ports, &shared), stopped).await;
    let (sequence, stored) = match loaded {
        Ok(loaded) => loaded,
        Err(ended) => return ended,
    };
    let host = &ports.host;
    let (now, date, seed) = (host.now(), host.date(), host.random());
    let (agent, actions) = Agent::new(options, sequence, stored, now, date, seed);
    // Every operation and the commit have room, so that none waits for the loop.
    let (news_tx, news) = async_channel::bounded(RUNNING_MAX + 1);
    let mut worker = Worker {
        shared,
        agent,
        outbox: Outbox::new(sequence),
        writing: Writing::default(),
        lanes: Lanes::default(),
        waiters: Waiters::default(),
        last_tick: now,
        news: news_tx,
        ended: None,
        ports,
    };
    worker.push(actions);
    let ended = worker.drive(&channels, &news).await;
    worker.lanes.abort_all();
    ended
}

/// Reads what is on disk, as often as it takes.
async fn load<H: Host, D: AgentDisk, P, W>(
    ports: &Ports<H, D, P, W>,
    shared: &Shared,
) -> Result<(crate::types::Sequence, Vec<agent::StoredTask>), Ended> {
    let mut wait = WRITE_RETRY;
    loop {
        match ports.disk.load().await {
            Ok(loaded) => {
                shared.set(|status| status.worker_health = None);
                return Ok(loaded);
            }
            Err(error) if error.temporary => {
                tracing::warn!(%error, "cannot read the node's state; trying again");
                shared.set(|status| status.worker_health = Some(error.to_string()));
                ports.host.sleep_until(ports.host.now() + wait).await;
                wait = (wait * 2).min(WRITE_RETRY_MAX);
            }
            Err(error) => return Err(Ended::Fatal { error: error.to_string() }),
        }
    }
}

impl<H: Host, D: AgentDisk, P: Peers, W: Workload> Worker<H, D, P, W> {
    async fn drive(&mut self, channels: &Channels, news: &Receiver<News>) -> Ended {
        let events = self.ports.workload.events();
        loop {
            let wake = self.wait(channels, &events, news).await;
            let mut next = Some(wake);
            for _ in 0..DRAIN_MAX {
                let Some(wake) = next.take() else { break };
                self.handle(wake);
                if let Some(ended) = self.ended.take() {
                    return ended;
                }
                if self.outbox.is_full() {
                    break;
                }
                next = None
                    .or_else(|| news.try_recv().ok().map(Wake::News))
                    .or_else(|| channels.inputs.try_recv().ok().map(Wake::Input))
                    .or_else(|| events.try_recv().ok().map(Wake::Workload));
            }
            if let Some(wake) = next {
                self.handle(wake);
            }
            self.tick();
            if let Some(ended) = self.ended.take() {
                return ended;
            }
        }
    }

    /// Waits for the first of everything that can happen.
    async fn wait(
        &self,
        channels: &Channels,
        events: &Receiver<Event>,
        news: &Receiver<News>,
    ) -> Wake {
        use futures_lite::future::or;
        // While too much waits for the disk only the disk is listened to, and whoever ends us.
        let full = self.outbox.is_full();
        let stop = async {
            let _closed = channels.stop.recv().await;
            Wake::Stop
        };
        let news = async { news.recv().await.map_or(Wake::Stop, Wake::News) };
        let call = async { channels.calls.recv().await.map_or(Wake::Stop, Wake::Call) };
        let input = async {
            if full {
                return std::future::pending().await;
            }
            channels.inputs.recv().await.map_or(Wake::Stop, Wake::Input)
        };
        let event = async {
            if !full && let Ok(event) = events.recv().await {
                return Wake::Workload(event);
            }
            // Nothing happens by itself any more; operations still say what is wrong.
            std::future::pending().await
        };
        let late = async {
            wait::until(&self.ports.host, self.next_deadline()).await;
            Wake::Deadline
        };
        or(stop, or(news, or(call, or(input, or(event, late))))).await
    }

    fn handle(&mut self, wake: Wake) {
        match wake {
            Wake::Stop => self.ended = Some(Ended::Stopped),
            Wake::News(News::Written(result)) => self.written(result),
            Wake::News(News::Done { lane, number, event }) => {
                self.lanes.finished(&lane, number);
                if let Some(event) = event {
                    self.step(event);
                }
                self.run_lanes();
            }
            Wake::Input(Input::Message(FromManager::Place { role, managers })) => {
                self.ports.peers.take_place(role, managers);
            }
            Wake::Input(Input::Message(FromManager::Trust { trust, within })) => {
                self.ports.peers.take_trust(*trust, within);
            }
            Wake::Input(Input::Message(message)) => self.step(Event::Message(message)),
            Wake::Input(Input::Connected) => {
                self.shared.set(|status| status.connected = true);
                self.step(Event::Connected);
            }
            Wake::Input(Input::Disconnected) => {
                self.shared.set(|status| status.connected = false);
                self.step(Event::Disconnected);
            }
            Wake::Workload(event) => self.step(event),
            Wake::Call(WorkerCall::Leave) => self.step(Event::Leave),
            Wake::Call(WorkerCall::Tasks { reply }) => {
                let local = |(task, status): (&crate::types::Task, &crate::types::TaskStatus)| {
                    let health = self.agent.health(&task.id).cloned();
                    LocalTask { task: task.clone(), status: status.clone(), health }
                };
                // Whoever asked may be gone.
                let _gone = reply.try_send(self.agent.tasks().map(local).collect());
            }
            Wake::Call(WorkerCall::Kept { reply }) => {
                let _gone = reply.try_send(self.agent.kept_images().cloned());
            }
            Wake::Call(WorkerCall::Watch { task, removed, reply }) => {
                let _gone = reply.try_send(self.waiters.add(&self.agent, task, removed));
            }
            Wake::Deadline => {}
        }
    }

    fn step(&mut self, event: Event) {
        let (now, date) = (self.ports.host.now(), self.ports.host.date());
        let actions = self.agent.step(now, date, event);
        self.waiters.answer(&self.agent);
        self.push(actions);
    }

    fn push(&mut self, actions: Vec<Action>) {
        self.outbox.push(actions);
        self.carry_out();
    }

    /// Carries out everything that does not wait for the disk.
    fn carry_out(&mut self) {
        while let Some(action) = self.outbox.next() {
            self.act(action);
        }
        self.run_lanes();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Persist(records) => self.write(records),
            Action::Perform(operation) => self.lanes.push(operation),
            Action::Tell { task, state } => self.ports.workload.tell(&task, state),
            Action::Send(message) => {
                if let FromWorker::Heartbeat { session, .. } = message
                    && let Some(message) = self.shared.get().complaint()
                {
                    self.ports.peers.send_to_manager(FromWorker::Unwell { session, message });
                }
                self.ports.peers.send_to_manager(message);
            }
            Action::Reconnect { reason } => {
                tracing::info!(reason, "looking for another connection to a manager");
                self.ports.peers.reconnect();
            }
            Action::Retire { reason } => self.ended = Some(Ended::Retired { reason }),
        }
    }

    fn run_lanes(&mut self) {
        while let Some(job) = self.lanes.next() {
            let (host, workload) = (self.ports.host.clone(), self.ports.workload.clone());
            let news = self.news.clone();
            self.ports.host.spawn(perform(host, workload, job, news));
        }
    }

    fn write(&mut self, records: Vec<Record>) {
        self.writing.retry = None;
        self.writing.slow = Some(self.ports.host.now() + WRITE_SLOW);
        let (disk, news) = (self.ports.disk.clone(), self.news.clone());
        self.ports.host.spawn(async move {
            let result = disk.commit(records).await;
            let _ended = news.send(News::Written(result)).await;
        });
    }

    fn written(&mut self, result: Result<(), DiskError>) {
        self.writing.slow = None;
        match result {
            Ok(()) => {
                self.writing = Writing::default();
                self.shared.set(|status| status.worker_health = None);
                self.outbox.written();
                self.carry_out();
            }
            Err(error) if error.temporary => {
                let doubled = WRITE_RETRY.saturating_mul(1 << self.writing.failures.min(10));
                let wait = doubled.min(WRITE_RETRY_MAX);
                self.writing.failures += 1;
                self.writing.retry = Some(self.ports.host.now() + wait);
                tracing::warn!(%error, ?wait, "containers run on; nothing new is begun");
                self.shared.set(|status| status.worker_health = Some(error.to_string()));
            }
            Err(error) => self.ended = Some(Ended::Fatal { error: error.to_string() }),
        }
    }

    fn next_deadline(&self) -> Option<Moment> {
        let disk = wait::earlier(self.writing.retry, self.writing.slow);
        if self.outbox.is_full() {
            return disk;
        }
        let floor = self.last_tick + TICK_FLOOR;
        wait::earlier(self.agent.next_deadline().map(|deadline| deadline.max(floor)), disk)
    }

    /// Does what is due.
    fn tick(&mut self) {
        let now = self.ports.host.now();
        if self.writing.retry.is_some_and(|retry| retry <= now) {
            let records = self.outbox.again();
            self.write(records);
        }
        if self.writing.slow.is_some_and(|slow| slow <= now) {
            self.writing.slow = None;
            let text = format!("the node's state was not on disk after {WRITE_SLOW:?}");
            tracing::warn!("{text}");
            self.shared.set(|status| status.worker_health = Some(text));
        }
        let due = self.agent.next_deadline().is_some_and(|due| due <= now);
        if due && !self.outbox.is_full() && self.last_tick + TICK_FLOOR <= now {
            self.last_tick = now;
            self.step(Event::Tick);
        }
    }
}

/// Performs one operation and tells what came of it.
async fn perform<H: Host, W: Workload>(host: H, workload: W, job: Job, news: Sender<News>) {
    let Job { number, lane, operation, registration } = job;
    let attempt = Attempt { host, lane: lane.clone(), registration };
    let event = answer(&workload, operation, attempt).await;
    let _ended = news.send(News::Done { lane, number, event }).await;
}

/// Returns the event that answers an operation; none where it was ended by a later one on the same
/// task, which is what gets answered.
async fn answer<H: Host, W: Workload>(
    workload: &W,
    operation: Operation,
    attempt: Attempt<H>,
) -> Option<Event> {
    Some(match operation {
        Operation::Prepare { task } => {
            let result = attempt.run(workload.prepare(&task)).await?;
            Event::Prepared { task: task.id, result }
        }
        Operation::Start { task } => {
            let result = attempt.run(workload.start(&task)).await?;
            Event::Started { task: task.id, result }
        }
        Operation::Stop { task, signal, grace } => {
            match attempt.run(workload.stop(&task, &signal, grace)).await? {
                Ok(phase) => Event::Exited { task, phase },
                Err(failure) => Event::StopFailed { task, failure },
            }
        }
        Operation::Remove { task } => {
            let result = attempt.run(workload.remove(&task)).await?;
            Event::Removed { task, result }
        }
        Operation::TakeInventory { asked } => match attempt.run(workload.inventory()).await? {
            Ok(containers) => Event::Inventory { asked, containers },
            Err(_) => Event::RuntimeLost,
        },
        Operation::Probe { task, number, command, timeout } => {
            let result = attempt.run(workload.probe(&task, &command, timeout)).await?;
            Event::Probed { task, number, result }
        }
    })
}

/// One operation under way.
struct Attempt<H> {
    host: H,
    lane: Key,
    registration: AbortRegistration,
}

impl<H: Host> Attempt<H> {
    /// Waits for `operation`; none where it was ended. One that panics fails like any other: a
    /// defect that one container meets must not end the node, and the rest of its containers with
    /// it.
    async fn run<T>(
        self,
        operation: impl Future<Output = Result<T, Failure>>,
    ) -> Option<Result<T, Failure>> {
        let run = Abortable::new(operation, self.registration);
        let run = AssertUnwindSafe(run).catch_unwind();
        match wait::within(&self.host, OPERATION_LIMIT, run).await {
            Some(Ok(ended)) => ended.ok(),
            Some(Err(panic)) => {
                let message = format!("internal error: {}", panic_message(panic.as_ref()));
                tracing::error!(lane = ?self.lane, message, "an operation panicked");
                Some(Err(Failure { message, temporary: false }))
            }
            None => {
                let message = format!("no end within {OPERATION_LIMIT:?}");
                Some(Err(Failure { message, temporary: true }))
            }
        }
    }
}
