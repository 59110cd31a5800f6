//! Whoever waits for the end of a container.
//!
//! Knows what the agent has seen, so that whoever is told finds it so everywhere else; nothing of who
//! waits. How many do is limited by whoever lets them.

use crate::{
    agent::Agent,
    types::{TaskId, TaskStatus},
};
use async_channel::{Receiver, Sender};

#[derive(Debug)]
struct Waiter {
    task: TaskId,
    /// Whether it waits until nothing is left of it.
    removed: bool,
    /// How it ended, where that is not all that is waited for.
    ended: Option<TaskStatus>,
    reply: Sender<TaskStatus>,
}

/// Everybody who waits.
#[derive(Debug, Default)]
pub(super) struct Waiters(Vec<Waiter>);

impl Waiters {
    /// Takes one in; none where the task is not of this node.
    pub(super) fn add(
        &mut self,
        agent: &Agent,
        task: TaskId,
        removed: bool,
    ) -> Option<Receiver<TaskStatus>> {
        agent.outcome(&task)?;
        let (reply, ended) = async_channel::bounded(1);
        self.0.push(Waiter { task, removed, ended: None, reply });
        self.answer(agent);
        Some(ended)
    }

    /// Tells those whose container has ended, and forgets those who wait no more.
    pub(super) fn answer(&mut self, agent: &Agent) {
        self.0.retain_mut(|waiter| !waiter.reply.is_closed() && waiter.goes_on(agent));
    }
}

impl Waiter {
    fn goes_on(&mut self, agent: &Agent) -> bool {
        match agent.outcome(&self.task) {
            Some((_, false)) => return true,
            Some((status, true)) => {
                self.ended.get_or_insert_with(|| status.clone());
                if self.removed {
                    return true;
                }
            }
            None => {}
        }
        // Of one that went before it was seen to end nothing is known.
        let _gone = self.reply.try_send(self.ended.take().unwrap_or_default());
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::{Event, Options, Phase, StoredTask},
        types::{Date, Moment, Sequence, Task, TaskState},
    };

    fn step(agent: &mut Agent, waiters: &mut Waiters, event: Event) {
        drop(agent.step(Moment::ZERO, Date::EPOCH, event));
        waiters.answer(agent);
    }

    /// Returns an agent with one task, whose container runs.
    fn agent() -> (Agent, TaskId) {
        let status = TaskStatus { state: TaskState::Running, ..TaskStatus::default() };
        let stored = StoredTask { task: Task::sample(1), status, reported: true, local: None };
        let task = stored.task.id.clone();
        let (options, sequence) = (Options::default(), Sequence::default());
        let stored = vec![stored];
        (Agent::new(options, sequence, stored, Moment::ZERO, Date::EPOCH, 1).0, task)
    }

    #[test]
    fn those_who_wait_are_told_once_it_is_so() {
        let (mut agent, id) = agent();
        let mut waiters = Waiters::default();
        assert!(waiters.add(&agent, TaskId::from_bits(2), false).is_none(), "not of this node");
        let ended = waiters.add(&agent, id.clone(), false).unwrap();
        let removed = waiters.add(&agent, id.clone(), true).unwrap();
        drop(waiters.add(&agent, id.clone(), true));
        step(&mut agent, &mut waiters, Event::Inventory { asked: 1, containers: Vec::new() });
        // Nobody saw how it ended; whoever waits for its end is told, once.
        assert_eq!(ended.try_recv().unwrap().state, TaskState::Failed);
        assert!(ended.is_closed() && removed.is_empty());
        assert_eq!(waiters.0.len(), 1, "who waits no more is forgotten");
        let late = waiters.add(&agent, id.clone(), false).unwrap();
        assert_eq!(late.try_recv().unwrap().error, "exit status lost", "at once");
        step(&mut agent, &mut waiters, Event::Leave);
        step(&mut agent, &mut waiters, Event::Removed { task: id, result: Ok(()) });
        assert_eq!(removed.try_recv().unwrap().error, "exit status lost");
        assert!(waiters.0.is_empty());
    }

    #[test]
    fn the_exit_status_is_told() {
        let (mut agent, task) = agent();
        let mut waiters = Waiters::default();
        let ended = waiters.add(&agent, task.clone(), false).unwrap();
        assert!(ended.is_empty());
        let phase = Phase::Exited { code: Some(3), date: None, out_of_memory: false };
        step(&mut agent, &mut waiters, Event::Exited { task, phase });
        let status = ended.try_recv().unwrap();
        assert_eq!((status.state, status.exit_code), (TaskState::Failed, Some(3)));
    }
}
