//! What an update would do: it is carried out on a copy of the state, by the code that decides in
//! earnest, against nodes on which everything goes well and at once.

use super::{
    Change, Command, Planned, PlannedTask, Refusal, SlotKey, State,
    leader::Random,
    reconcile::{Memory, Pass},
    schedule::{self, Volatile},
};
use crate::types::{
    Date, Desired, Moment, Service, ServiceId, ServiceSpec, Task, TaskId, TaskState, TaskStatus,
    UpdateConfig, Version,
};
use std::collections::BTreeMap;

/// How many tasks a plan shows at most: each is decided on a state that holds those before it.
const PLANNED_MAX: usize = 256;

/// How often the rehearsal looks at a service at most: a place takes three looks, one after
/// another where they are replaced one at a time.
const LOOKS_MAX: usize = 4 * PLANNED_MAX;

/// A copy of the state that is played on.
struct Stage<'a> {
    state: State,
    volatile: &'a Volatile,
    memory: Memory,
    random: Random,
    now: Moment,
    date: Date,
    service: ServiceId,
}

/// Returns which tasks an update would make and end, in order.
///
/// # Errors
///
/// The update would be refused.
pub(super) fn update(
    state: &State,
    volatile: &Volatile,
    (now, date): (Moment, Date),
    service: &ServiceId,
    version: Version,
    spec: &ServiceSpec,
) -> Result<Vec<PlannedTask>, Refusal> {
    let mut stage = Stage {
        state: state.clone(),
        volatile,
        memory: Memory::default(),
        random: Random::new(0),
        now,
        date,
        service: service.clone(),
    };
    // Nothing fails and nobody waits: delays and watching change neither order nor place.
    let hurried = |config: &UpdateConfig| UpdateConfig {
        delay: std::time::Duration::ZERO,
        monitor: std::time::Duration::ZERO,
        ..*config
    };
    let mut played = spec.clone();
    (played.update, played.rollback) = (hurried(&spec.update), hurried(&spec.rollback));
    let (id, expected, spec) = (service.clone(), version, Box::new(played));
    stage.apply(Change::UpdateService { id, expected, spec })?;
    Ok(stage.play(state))
}

impl Stage<'_> {
    fn apply(&mut self, change: Change) -> Result<(), Refusal> {
        let applied = self.state.applied();
        let next = Version { index: applied.index + 1, ..applied };
        let command = Command { request: None, term: 0, date: self.date, change };
        self.state.apply(next, 0, &command)?;
        Ok(())
    }

    /// Plays until nothing more happens.
    fn play(mut self, before: &State) -> Vec<PlannedTask> {
        let mut planned = Plan::default();
        let mut all_at_once = false;
        for _ in 0..LOOKS_MAX {
            let Some(service) = self.state.service(&self.service).cloned() else { break };
            let changes = self.look(&service);
            let mut moved = !changes.is_empty();
            for change in changes {
                // What is rejected is decided anew at the next look; so it is below.
                let _anew = self.apply(change);
            }
            let decisions = schedule::schedule(&self.state, self.volatile, self.now);
            moved |= decisions.iter().any(|decision| decision.node.is_some());
            let _anew = self.apply(Change::Schedule { decisions });
            planned.note(before, &self.state, &service.id);
            let reports = self.reports();
            moved |= !reports.is_empty();
            let _anew = self.apply(Change::ReportTasks { reports });
            if planned.tasks.len() >= PLANNED_MAX || (!moved && all_at_once) {
                break;
            }
            if !moved {
                // No node takes the next one, and the others would wait for it: they are looked at
                // nevertheless.
                all_at_once = true;
                self.lift_parallelism();
            }
        }
        planned.finish(before, &self.state, &self.service)
    }

    fn lift_parallelism(&mut self) {
        let Some(service) = self.state.service(&self.service) else { return };
        let (id, expected) = (service.id.clone(), service.version);
        let mut spec = Box::new(service.spec.clone());
        spec.update.parallelism = 0;
        let _anew = self.apply(Change::UpdateService { id, expected, spec });
    }

    fn look(&mut self, service: &Service) -> Vec<Change> {
        let mut pass = Pass {
            state: &self.state,
            volatile: self.volatile,
            memory: &mut self.memory,
            random: &mut self.random,
            now: self.now,
            date: self.date,
            changes: Vec::new(),
            wake: None,
        };
        pass.service(service);
        pass.changes
    }

    /// What nodes would say: what has a node runs, what is told to stop has stopped.
    fn reports(&self) -> Vec<(TaskId, TaskStatus)> {
        let next = |task: &Task| {
            let state = match task.desired {
                Desired::Running | Desired::Complete => TaskState::Running,
                Desired::Ready => TaskState::Ready,
                Desired::Shutdown | Desired::Remove => TaskState::Shutdown,
            };
            let given = task.status.state >= TaskState::Assigned;
            (given && task.status.state < state && task.status.state.is_live()).then_some(state)
        };
        let tasks = self.state.tasks_of_service(&self.service);
        let told = tasks.filter_map(|task| {
            let status = TaskStatus { state: next(task)?, date: self.date, ..task.status.clone() };
            Some((task.id.clone(), status))
        });
        told.collect()
    }
}

/// What was seen to happen, in order.
#[derive(Default)]
struct Plan {
    tasks: Vec<PlannedTask>,
    made: BTreeMap<TaskId, usize>,
}

impl Plan {
    /// Takes in what the last look made.
    fn note(&mut self, before: &State, state: &State, service: &ServiceId) {
        let new = state.tasks_of_service(service).filter(|task| before.task(&task.id).is_none());
        let mut new: Vec<&Task> = new.collect();
        new.sort_by_key(|task| (task.slot, task.node.clone()));
        for task in new {
            let at = *self.made.entry(task.id.clone()).or_insert(self.tasks.len());
            let mut slot = before.tasks_in_slot(&SlotKey::of(task));
            let old = slot.find(|old| old.is_active());
            let planned = PlannedTask {
                task: task.short_name(),
                what: if old.is_some() { Planned::Replaced } else { Planned::Made },
                old: old.map(|old| old.id.clone()),
                from: old.and_then(|old| old.node.clone()),
                to: task.node.clone(),
                error: task.status.error.clone(),
            };
            match self.tasks.get_mut(at) {
                Some(known) => *known = planned,
                None => self.tasks.push(planned),
            }
        }
    }

    /// Adds what is ended without a task in its place.
    fn finish(mut self, before: &State, state: &State, service: &ServiceId) -> Vec<PlannedTask> {
        let replaced = |id: &TaskId| self.tasks.iter().any(|task| task.old.as_ref() == Some(id));
        let ended = before.tasks_of_service(service).filter(|old| {
            let wanted = state.task(&old.id).is_some_and(|task| task.desired.is_wanted());
            old.is_active() && !wanted && !replaced(&old.id)
        });
        let ended: Vec<PlannedTask> = ended
            .map(|old| PlannedTask {
                task: old.short_name(),
                what: Planned::Ended,
                old: Some(old.id.clone()),
                from: old.node.clone(),
                to: None,
                error: String::new(),
            })
            .collect();
        self.tasks.extend(ended);
        self.tasks.truncate(PLANNED_MAX);
        self.tasks
    }
}
