//! The handle to a running node: what the rest of the program asks of it.
//!
//! Knows the questions and their time limits. Not generic, so that the HTTP interface and the
//! joiners' listener need not know which ports the node runs on.

use super::{Ended, ports::Host};
use crate::{
    cluster::{
        Admission, Applied, Class, Command, NOT_A_MANAGER, Refusal, RenewRequest, Request, Response,
    },
    types::{Health, Moment, NodeId, Task, TaskId, TaskStatus},
    util::answer::answered,
};
use async_channel::{Receiver, Sender};
use std::{
    collections::BTreeSet,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How many calls wait for the manager loop. Each is one user or joiner who waits; more than this
/// at once is a stampede, and those beyond it are told to try again.
const CALLS_MAX: usize = 256;

/// How many calls wait for the worker loop: `ps`, `wait`, `leave`.
const WORKER_CALLS_MAX: usize = 16;

/// How much longer the handle waits than the loop: the loop's own refusal says more than ours.
const GRACE: Duration = Duration::from_millis(500);

/// A task as this node's agent sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalTask {
    /// The task as it was assigned, or made here.
    pub task: Task,
    /// How far it has come.
    pub status: TaskStatus,
    /// Its container's health; none where it is not probed.
    pub health: Option<Health>,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Whether it is a manager that leads.
    pub leading: bool,
    /// The consensus term, on managers.
    pub term: u64,
    /// The node that leads, where known.
    pub leader: Option<NodeId>,
    /// Whether it has a connection to a manager.
    pub connected: bool,
    /// What is wrong with the worker's side, for people.
    pub worker_health: Option<String>,
    /// What is wrong with the manager's side, for people.
    pub manager_health: Option<String>,
    /// What is wrong with the manager's log, for people; changes are taken all the same.
    pub log_health: Option<String>,
    /// What is wrong with the address that other nodes know this manager by, for people.
    pub address_health: Option<String>,
    /// Why the node ended, once it has.
    pub ended: Option<Ended>,
}

impl Status {
    /// Returns what the other nodes are to know that is wrong.
    pub(super) fn complaint(&self) -> Option<String> {
        let log = || self.log_health.clone();
        self.health().or_else(log).or_else(|| self.address_health.clone())
    }

    /// Returns everything that hinders the node, in one line.
    #[must_use]
    pub fn health(&self) -> Option<String> {
        match (&self.manager_health, &self.worker_health) {
            (Some(manager), Some(worker)) => Some(format!("{manager}; {worker}")),
            (manager, worker) => manager.clone().or_else(|| worker.clone()),
        }
    }
}

/// What the loops write and the handle reads.
#[derive(Debug, Default)]
pub(super) struct Shared {
    status: Mutex<Status>,
}

impl Shared {
    /// Changes the status.
    pub(super) fn set(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn get(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Asked of the manager loop.
#[derive(Debug)]
pub(super) enum ManagerCall {
    Request {
        request: Request,
        /// By another manager, for somebody who asked that one.
        relayed: bool,
        deadline: Moment,
        reply: Sender<Result<Response, Refusal>>,
    },
    Bootstrap {
        command: Command,
        deadline: Moment,
        reply: Sender<Result<Applied, Refusal>>,
    },
    Snapshot {
        reply: Sender<Result<Vec<u8>, Refusal>>,
    },
    #[cfg(test)]
    RebuildLeader,
    #[cfg(test)]
    Inspect {
        reply: Sender<crate::cluster::State>,
    },
}

/// Asked of the worker loop.
#[derive(Debug)]
pub(super) enum WorkerCall {
    Tasks { reply: Sender<Vec<LocalTask>> },
    Kept { reply: Sender<Option<BTreeSet<String>>> },
    Watch { task: TaskId, removed: bool, reply: Sender<Option<Receiver<TaskStatus>>> },
    Leave,
}

/// The loops' ends of the handle's channels.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) manager: Receiver<ManagerCall>,
    pub(super) worker: Receiver<WorkerCall>,
    pub(super) stop: Receiver<()>,
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A handle to a node. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    manager: Option<Sender<ManagerCall>>,
    worker: Sender<WorkerCall>,
    stop: Sender<()>,
    shared: Arc<Shared>,
    /// Returns a deadline this far away, and a wait until a little after it.
    timer: Arc<dyn Fn(Duration) -> (Moment, Sleep) + Send + Sync>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("status", &self.shared.get()).finish_non_exhaustive()
    }
}

/// Makes a handle and the loops' ends of it.
pub(super) fn new<H: Host>(host: H, is_manager: bool) -> (Handle, Arc<Shared>, Calls) {
    let (manager_tx, manager) = async_channel::bounded(CALLS_MAX);
    let (worker_tx, worker) = async_channel::bounded(WORKER_CALLS_MAX);
    let (stop_tx, stop) = async_channel::bounded(1);
    let shared = Arc::new(Shared::default());
    let timer = Arc::new(move |limit| {
        let host = host.clone();
        let deadline = host.now() + limit;
        let sleep: Sleep = Box::pin(async move { host.sleep_until(deadline + GRACE).await });
        (deadline, sleep)
    });
    let handle = Handle {
        manager: is_manager.then_some(manager_tx),
        worker: worker_tx,
        stop: stop_tx,
        shared: Arc::clone(&shared),
        timer,
    };
    (handle, shared, Calls { manager, worker, stop })
}

impl Handle {
    /// Asks the leader. A read of what is committed waits for the read barrier, so it is
    /// linearizable; a change is answered once it is committed.
    ///
    /// # Errors
    ///
    /// The leader's refusal; `Unavailable` where this node is no manager or there is no leader,
    /// where the node ended, and where there is no answer within `limit`: a change may be carried out
    /// yet, and is safe to repeat under the same request id.
    pub async fn request(&self, request: Request, limit: Duration) -> Result<Response, Refusal> {
        let relayed = false;
        self.ask(limit, |deadline, reply| ManagerCall::Request {
            request,
            relayed,
            deadline,
            reply,
        })
        .await
    }

    /// Asks the leader for a member's next certificate; where the node is not known, and its
    /// certificate is `good`, to take it in again.
    ///
    /// # Errors
    ///
    /// As [`Handle::request`]; `Unauthorized` where the node is no member, or joined with another key.
    pub async fn renew(
        &self,
        asked: RenewRequest,
        good: bool,
        limit: Duration,
    ) -> Result<Admission, Refusal> {
        let asked = Box::new(asked);
        let answer = match self.request(Request::Renew(asked.clone()), limit).await {
            Err(refusal) if refusal.class == Class::Unauthorized && good => {
                let answer = self.request(Request::Readmit(asked), limit).await;
                // A leader of an earlier version does not know the question.
                answer
                    .map_err(|again| if again.may_be_of_an_older_peer() { refusal } else { again })
            }
            answer => answer,
        };
        match answer? {
            Response::Admitted(admission) => Ok(*admission),
            _ => Err(Refusal::new(Class::Internal, "the leader answered oddly")),
        }
    }

    /// Asks this node's leader for another manager.
    ///
    /// # Errors
    ///
    /// As [`Handle::request`]; `NotLeader` where this node does not lead, or ceases to: then it was
    /// not done, or nobody knows.
    pub async fn relayed(&self, request: Request, limit: Duration) -> Result<Response, Refusal> {
        let relayed = true;
        self.ask(limit, |deadline, reply| ManagerCall::Request {
            request,
            relayed,
            deadline,
            reply,
        })
        .await
    }

    /// Makes the cluster: commits `command`, a `CreateCluster`, as the first entry of the log.
    /// Waits for leadership as long as `limit` allows. Repeating it with the same request id is
    /// safe.
    ///
    /// # Errors
    ///
    /// As [`Handle::request`]; `Conflict` where there is a cluster already.
    pub async fn bootstrap(&self, command: Command, limit: Duration) -> Result<Applied, Refusal> {
        self.ask(limit, |deadline, reply| ManagerCall::Bootstrap { command, deadline, reply }).await
    }

    /// Returns the cluster's state as this manager has applied it, as the bytes of a snapshot.
    ///
    /// # Errors
    ///
    /// As [`Handle::request`], but for leadership: any manager has a state, also one that is cut
    /// off from the others.
    pub async fn snapshot(&self, limit: Duration) -> Result<Vec<u8>, Refusal> {
        self.ask(limit, |_, reply| ManagerCall::Snapshot { reply }).await
    }

    async fn ask<T>(
        &self,
        limit: Duration,
        call: impl FnOnce(Moment, Sender<Result<T, Refusal>>) -> ManagerCall,
    ) -> Result<T, Refusal> {
        let Some(manager) = &self.manager else {
            return Err(Refusal::new(Class::Unavailable, NOT_A_MANAGER));
        };
        let (deadline, sleep) = (self.timer)(limit);
        let (reply, answer) = async_channel::bounded(1);
        match manager.try_send(call(deadline, reply)) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                let text = format!("the manager is busy: {CALLS_MAX} requests wait; try again");
                return Err(Refusal::new(Class::Unavailable, text));
            }
            Err(_closed) => return Err(self.gone()),
        }
        let answered =
            async { answered(manager, &answer).await.unwrap_or_else(|| Err(self.gone())) };
        let late = async {
            sleep.await;
            Err(no_answer(limit))
        };
        futures_lite::future::or(answered, late).await
    }

    /// Returns the tasks of this node as its agent sees them.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the node ended or does not answer within `limit`.
    pub async fn agent_tasks(&self, limit: Duration) -> Result<Vec<LocalTask>, Refusal> {
        self.ask_agent(limit, |reply| WorkerCall::Tasks { reply }).await
    }

    /// Returns which images services refer to, by digest; none where no manager has said so since
    /// the node began.
    ///
    /// # Errors
    ///
    /// As [`Handle::agent_tasks`].
    pub async fn kept_images(&self, limit: Duration) -> Result<Option<BTreeSet<String>>, Refusal> {
        self.ask_agent(limit, |reply| WorkerCall::Kept { reply }).await
    }

    /// Returns what the last status of one of this node's tasks is sent to, once its container has
    /// ended, as its agent sees it; with `removed`, once nothing of it is left. It closes without one
    /// where the node ends first. None where there is no such task.
    ///
    /// # Errors
    ///
    /// As [`Handle::agent_tasks`].
    pub async fn watch_end(
        &self,
        task: TaskId,
        removed: bool,
        limit: Duration,
    ) -> Result<Option<Receiver<TaskStatus>>, Refusal> {
        self.ask_agent(limit, |reply| WorkerCall::Watch { task, removed, reply }).await
    }

    async fn ask_agent<T>(
        &self,
        limit: Duration,
        call: impl FnOnce(Sender<T>) -> WorkerCall,
    ) -> Result<T, Refusal> {
        let (_, sleep) = (self.timer)(limit);
        let (reply, answer) = async_channel::bounded(1);
        let answered = async {
            let sent = self.worker.send(call(reply)).await;
            sent.map_err(|_| self.gone())?;
            answered(&self.worker, &answer).await.ok_or_else(|| self.gone())
        };
        let late = async {
            sleep.await;
            Err(no_answer(limit))
        };
        futures_lite::future::or(answered, late).await
    }

    /// Takes the node out of the cluster: everything of it is stopped and removed, then the run
    /// ends as [`Ended::Retired`]. Returns once the agent has been told.
    ///
    /// # Errors
    ///
    /// `Unavailable` where the node ended already or is too busy.
    pub fn leave(&self) -> Result<(), Refusal> {
        self.worker.try_send(WorkerCall::Leave).map_err(|error| {
            if error.is_full() {
                Refusal::new(Class::Unavailable, "the node is busy; try again")
            } else {
                self.gone()
            }
        })
    }

    /// Ends the run as [`Ended::Stopped`]. Containers go on running.
    pub fn stop(&self) {
        // Full says that somebody asked before, closed that the node has ended.
        let _asked = self.stop.try_send(());
    }

    /// Returns how the node is.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.get()
    }

    /// Says what is wrong with the address that other nodes know this manager by; none where nothing
    /// is.
    pub fn set_address_health(&self, health: Option<String>) {
        self.shared.set(|status| status.address_health = health);
    }

    /// Throws the leader away and derives it again, as a change of leadership would.
    #[cfg(test)]
    pub(crate) fn rebuild_leader(&self) {
        if let Some(manager) = &self.manager {
            let _asked = manager.try_send(ManagerCall::RebuildLeader);
        }
    }

    /// Returns a copy of the replicated state.
    #[cfg(test)]
    pub(crate) async fn state(&self) -> Option<crate::cluster::State> {
        let (reply, answer) = async_channel::bounded(1);
        let manager = self.manager.as_ref()?;
        manager.send(ManagerCall::Inspect { reply }).await.ok()?;
        answered(manager, &answer).await
    }

    fn gone(&self) -> Refusal {
        match self.status().ended {
            Some(ended) => Refusal::new(Class::Unavailable, ended.to_string()),
            None => Refusal::new(Class::Unavailable, "the node is shutting down"),
        }
    }
}

fn no_answer(limit: Duration) -> Refusal {
    Refusal::new(Class::Unavailable, format!("no answer within {limit:?}; try again"))
}
