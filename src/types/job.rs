//! Jobs: services whose tasks run to their end.
//!
//! A replicated job has as many slots as completions are wanted, a global one a place on each node
//! that fits. A place is done once a task of the present iteration came to its end there, and given
//! up once one failed that the restart policy does not replace. Knows neither time nor who decides.

use super::{
    Date, Desired, Mode, RestartCondition, Service, ServiceSpec, SpecDifference, Task, TaskState,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How often a job was set off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Counts from 0; raised by every update that changes what tasks run. Tasks of a lower one are
    /// history.
    pub iteration: u64,
    /// When the iteration began.
    pub last_execution: Date,
}

/// How a job's place stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobPlace {
    /// A task is wanted there and has not ended well yet.
    Active,
    /// A task came to its end there.
    Complete,
    /// The last task failed or was stopped, and none is made in its place.
    GivenUp,
    /// What was there was told to stop.
    Stopped,
}

/// The places of a job, counted. Those that never had a task are in none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobTally {
    /// Places with a task that is wanted.
    pub active: u64,
    /// Places that are done.
    pub complete: u64,
    /// Places that were given up.
    pub given_up: u64,
}

impl Mode {
    /// Tells whether tasks of the service are meant to end.
    #[must_use]
    pub fn is_job(self) -> bool {
        matches!(self, Self::ReplicatedJob { .. } | Self::GlobalJob)
    }

    /// Tells whether the service has a place on each node, instead of slots.
    #[must_use]
    pub fn is_per_node(self) -> bool {
        matches!(self, Self::Global | Self::GlobalJob)
    }

    /// Tells whether both are of one kind: a service keeps its own for life.
    #[must_use]
    pub fn is_like(self, other: Self) -> bool {
        (self.is_job(), self.is_per_node()) == (other.is_job(), other.is_per_node())
    }
}

impl ServiceSpec {
    /// Tells whether a job whose spec was `before` has to run anew. How many there are of it, and
    /// its own labels, make no difference to what a task runs; nor do a login, which is used only
    /// once, and what was known of the same image.
    #[must_use]
    pub fn runs_anew(&self, before: &Self) -> bool {
        let SpecDifference { credential: _, constraints, rest } =
            before.task.difference(&self.task);
        constraints || rest || self.endpoint != before.endpoint
    }
}

impl Task {
    /// Tells whether it belongs to a job.
    #[must_use]
    pub fn is_job(&self) -> bool {
        self.job_iteration.is_some()
    }

    /// Tells whether it is a job's task that came to its end. Stays wanted for ever, so that it is
    /// kept and counted.
    #[must_use]
    pub fn is_complete_job(&self) -> bool {
        self.is_job() && self.status.state == TaskState::Complete
    }

    /// Returns what it is to come to once nothing holds it back.
    #[must_use]
    pub fn goal(&self) -> Desired {
        if self.is_job() { Desired::Complete } else { Desired::Running }
    }
}

/// Returns how one place of a job stands, by its tasks of the present iteration; none where there
/// are none.
#[must_use]
pub fn job_place<'a>(tasks: impl Iterator<Item = &'a Task>) -> Option<JobPlace> {
    let mut newest: Option<&Task> = None;
    let mut active = false;
    for task in tasks {
        if task.is_complete_job() {
            return Some(JobPlace::Complete);
        }
        active |= task.desired.is_wanted();
        let age = |task: &Task| (task.created, task.failures, task.id.clone());
        if newest.is_none_or(|known| age(known) < age(task)) {
            newest = Some(task);
        }
    }
    let newest = newest?;
    // With no restarts, not even what was told to stop is made up for.
    let failed = matches!(newest.status.state, TaskState::Failed | TaskState::Rejected)
        || newest.spec.restart.condition == RestartCondition::None;
    Some(match (active, failed) {
        (true, _) => JobPlace::Active,
        (false, true) => JobPlace::GivenUp,
        (false, false) => JobPlace::Stopped,
    })
}

impl JobTally {
    /// Counts the places of the service's present iteration. `tasks` may hold those of other
    /// services; none where the service is no job.
    #[must_use]
    pub fn of<'a>(service: &Service, tasks: impl Iterator<Item = &'a Task>) -> Option<Self> {
        let iteration = service.job?.iteration;
        let mut places: BTreeMap<_, Vec<&Task>> = BTreeMap::new();
        for task in tasks {
            let current = task.service == service.id && task.job_iteration == Some(iteration);
            if current && task.desired != Desired::Remove {
                let node = task.node.as_ref().filter(|_| task.slot == 0);
                places.entry((task.slot, node)).or_default().push(task);
            }
        }
        let mut tally = Self::default();
        for tasks in places.into_values() {
            match job_place(tasks.into_iter()) {
                Some(JobPlace::Active) => tally.active += 1,
                Some(JobPlace::Complete) => tally.complete += 1,
                Some(JobPlace::GivenUp) => tally.given_up += 1,
                Some(JobPlace::Stopped) | None => {}
            }
        }
        Some(tally)
    }
}
