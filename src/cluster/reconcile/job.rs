//! Jobs: tasks that run to their end, once in each slot or on each node.
//!
//! Only tasks of the present iteration count. A slot in which one came to its end is done, and what
//! else is wanted there is told to stop: after a lost node returned, the one that was there first
//! may have ended well. What fails is replaced as a service's tasks are, in its slot, until the
//! restart policy gives the slot up. Tasks of older iterations are told to stop, and their places
//! are not taken before they did.

use super::{Making, PREDECESSOR_WAIT, Pass, Slot, Wait};
use crate::{
    cluster::SlotKey,
    types::{Desired, JobPlace, Mode, ReasonCode, Service, ServiceId, Task, TaskState, job_place},
};
use std::collections::BTreeMap;

/// How many tasks one change tells to stop: some 50 KB of them.
const DESIRED_PER_CHANGE: usize = 1_024;

/// The tasks of one place.
#[derive(Debug, Default)]
struct Place<'a> {
    /// Of the present iteration, wanted or not.
    current: Vec<&'a Task>,
    /// The newest that is told to stop and may still run.
    leaving: Option<&'a Task>,
}

/// The tasks of a job by their places.
type Places<'a> = BTreeMap<SlotKey, Place<'a>>;

impl<'a> Pass<'a> {
    pub(super) fn job(&mut self, service: &Service) {
        let places = self.places(service);
        match service.spec.mode {
            Mode::ReplicatedJob { max_concurrent, total_completions } => {
                self.replicated_job(service, places, max_concurrent, total_completions);
            }
            Mode::GlobalJob => self.global_job(service, places),
            Mode::Replicated { .. } | Mode::Global => {}
        }
    }

    /// Sorts the service's tasks by place, and ends what no longer counts.
    fn places(&mut self, service: &Service) -> Places<'a> {
        let iteration = service.job.map(|job| job.iteration);
        let slots = match service.spec.mode {
            Mode::ReplicatedJob { total_completions, .. } => total_completions,
            _ => 0,
        };
        let mut places = Places::new();
        let mut desire = Vec::new();
        for task in self.state.tasks_of_service(&service.id) {
            let (mut desired, live) = (task.desired, task.status.state.is_live());
            if task.slot > slots {
                desired = desired.max(Desired::Remove);
            } else if task.job_iteration != iteration && desired.is_wanted() {
                // What ended is kept as history; that it ended well stays to be seen.
                desired = match task.status.state {
                    TaskState::Complete => desired,
                    _ if live => Desired::Remove,
                    _ => Desired::Shutdown,
                };
            }
            if desired != task.desired {
                desire.push((task, desired));
            }
            let place = places.entry(SlotKey::of(task)).or_default();
            let given = task.status.state >= TaskState::Assigned && live;
            if given && !desired.is_wanted() && !self.is_lost(task) {
                let newer = place.leaving.is_none_or(|known| known.created < task.created);
                place.leaving = if newer { Some(task) } else { place.leaving };
            }
            if task.job_iteration == iteration && desired != Desired::Remove {
                place.current.push(task);
            }
        }
        for chunk in desire.chunks(DESIRED_PER_CHANGE) {
            self.replace(vec![], chunk.to_vec());
        }
        places
    }

    fn replicated_job(
        &mut self,
        service: &Service,
        mut places: Places<'a>,
        max_concurrent: u64,
        total: u64,
    ) {
        let mut active = 0_u64;
        let mut free = Vec::new();
        for number in 1..=total {
            let key = slot_key(&service.id, number);
            let place = places.remove(&key).unwrap_or_default();
            let stand = self.stand(&key, &place);
            match stand {
                Some(JobPlace::Active) => self.keep_place(service, key, place),
                Some(JobPlace::Complete) => self.close(&place),
                Some(JobPlace::GivenUp) => {}
                Some(JobPlace::Stopped) | None => {
                    // It runs beside the others for a while yet.
                    active += u64::from(place.leaving.is_some_and(|task| self.is_leaving(task)));
                    free.push((key, place.leaving));
                    continue;
                }
            }
            active += u64::from(stand == Some(JobPlace::Active));
        }
        let beyond = places.values().filter_map(|place| place.leaving);
        let beyond: Vec<&Task> = beyond.collect();
        active += u64::try_from(beyond.iter().filter(|task| self.is_leaving(task)).count())
            .unwrap_or(u64::MAX);
        let bound = if max_concurrent == 0 { u64::MAX } else { max_concurrent };
        for (key, leaving) in free {
            // A task that takes the place of one that is leaving runs only after it.
            let leaves = leaving.is_some_and(|task| self.is_leaving(task));
            if self.is_full() || (active >= bound && !(leaves && active == bound)) {
                break;
            }
            active += u64::from(!leaves);
            self.begin_place(service, &key, leaving);
        }
    }

    fn global_job(&mut self, service: &Service, mut places: Places<'a>) {
        let state = self.state;
        for node in state.nodes() {
            let key = SlotKey { service: service.id.clone(), slot: 0, node: Some(node.id.clone()) };
            let place = places.remove(&key).unwrap_or_default();
            let fits = service.spec.task.placement.constraints.iter().all(|c| c.matches(node));
            match self.stand(&key, &place) {
                Some(JobPlace::Active) => {
                    let slot = Slot::of(key.clone(), place.current.clone());
                    if slot.is_some_and(|slot| self.takes_part(node, &slot, fits)) {
                        self.keep_place(service, key, place);
                    }
                }
                Some(JobPlace::Complete) => self.close(&place),
                Some(JobPlace::GivenUp) => {}
                Some(JobPlace::Stopped) | None => {
                    if fits && super::global::takes_tasks(node) && !self.is_full() {
                        self.begin_place(service, &key, place.leaving);
                    }
                }
            }
        }
    }

    /// Returns how a place stands; a task that failed gives it up only where the restart policy
    /// says so.
    fn stand(&self, key: &SlotKey, place: &Place<'a>) -> Option<JobPlace> {
        let stand = job_place(place.current.iter().copied())?;
        if !matches!(stand, JobPlace::GivenUp | JobPlace::Stopped) {
            return Some(stand);
        }
        let slot = Slot::of(key.clone(), place.current.clone())?;
        Some(if self.is_done(&slot) { JobPlace::GivenUp } else { JobPlace::Stopped })
    }

    fn keep_place(&mut self, service: &Service, key: SlotKey, place: Place<'a>) {
        if let Some(slot) = Slot::of(key, place.current) {
            // Jobs are not updated: another spec is another iteration.
            let _stand = self.keep(service, &slot);
        }
    }

    /// Ends what is wanted beside a task that came to its end. That one may be held still: its node
    /// lets it go by itself where no manager answers.
    fn close(&mut self, place: &Place<'a>) {
        let desire = place.current.iter().filter_map(|task| {
            let desired = match task.is_complete_job() {
                true if task.desired == Desired::Ready => task.goal(),
                false if task.desired.is_wanted() => Desired::Shutdown,
                _ => return None,
            };
            Some((*task, desired))
        });
        let desire: Vec<_> = desire.collect();
        if !desire.is_empty() {
            self.replace(vec![], desire);
        }
    }

    /// Makes the first task of a place, or another one after it was told to stop.
    fn begin_place(&mut self, service: &Service, key: &SlotKey, leaving: Option<&'a Task>) {
        let reason = match service.job {
            Some(job) if job.iteration > 0 => ReasonCode::SpecChanged,
            _ if key.node.is_some() => ReasonCode::NodeJoined,
            _ => ReasonCode::ServiceScaled,
        };
        let making = match leaving {
            Some(task) => Making::held_for(task, reason),
            None => Making::at_once(reason),
        };
        let task = self.make(service, key, None, making);
        self.replace(vec![task], vec![]);
    }

    /// Tells whether a task that was told to stop counts as running. One that does not stop is not
    /// waited for longer than a predecessor is.
    fn is_leaving(&mut self, task: &Task) -> bool {
        let until = self.since(task, Wait::Leaving, task.updated).at(PREDECESSOR_WAIT);
        if self.now < until {
            self.wake_at(until);
        }
        self.now < until
    }
}

fn slot_key(service: &ServiceId, slot: u64) -> SlotKey {
    SlotKey { service: service.clone(), slot, node: None }
}
