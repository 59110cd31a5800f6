//! What must hold of jobs: what came to its end is not run again, not too much runs at once, and
//! in the end every place is done or given up.

use crate::{
    cluster::State,
    types::{Availability, JobTally, Mode, NodeState, Service, Task, TaskId},
};
use std::collections::BTreeSet;

/// Looks at the tasks that an entry made.
pub(super) fn check_made(state: &State, known: impl Fn(&TaskId) -> bool) {
    // What a node made itself while it was alone is taken over as history.
    let made = state.tasks().filter(|task| task.is_job() && !known(&task.id));
    let made = made.filter(|task| task.desired.is_wanted() && task.status.state.is_live());
    for task in made {
        let Some(service) = state.service(&task.service) else { continue };
        let mut done = state.tasks_of_service(&service.id).filter(|other| {
            let same_place = other.slot == task.slot && (task.slot > 0 || other.node == task.node);
            let same = same_place && other.job_iteration == task.job_iteration;
            same && other.id != task.id && other.is_complete_job() && other.desired.is_wanted()
        });
        assert!(done.next().is_none(), "{} runs again what was done", task.full_name());
        let Mode::ReplicatedJob { max_concurrent, .. } = service.spec.mode else { continue };
        // What replaces another takes no place of its own.
        if max_concurrent > 0 && task.predecessor.is_none() {
            let active = tally(state, service).active;
            assert!(active <= max_concurrent, "{active} of {} at once", service.spec.name);
        }
    }
}

fn tally(state: &State, service: &Service) -> JobTally {
    JobTally::of(service, state.tasks_of_service(&service.id)).expect("it is a job")
}

/// Returns what a job still waits for, if anything. What runs or could is looked at elsewhere.
pub(super) fn unrest(state: &State, service: &Service) -> Option<String> {
    let name = &service.spec.name;
    match service.spec.mode {
        Mode::ReplicatedJob { total_completions, .. } => {
            let tally = tally(state, service);
            let ended = tally.complete + tally.given_up;
            // What no node takes holds the rest up.
            let over = ended == total_completions || tally.active > 0;
            (!over).then(|| format!("{name} has ended {ended} of {total_completions}"))
        }
        Mode::GlobalJob => {
            let current = service.job.map(|job| job.iteration);
            let counts = |task: &&Task| task.job_iteration == current;
            let there: BTreeSet<_> = state
                .tasks_of_service(&service.id)
                .filter(counts)
                .filter_map(|task| task.node.clone())
                .collect();
            let constraints = &service.spec.task.placement.constraints;
            let missing = state.nodes().find(|node| {
                node.status.state == NodeState::Ready
                    && node.spec.availability == Availability::Active
                    && constraints.iter().all(|constraint| constraint.matches(node))
                    && !there.contains(&node.id)
            });
            missing.map(|node| format!("{name} never ran on {}", node.id))
        }
        Mode::Replicated { .. } | Mode::Global => None,
    }
}
