//! The one way to change the cluster's state.
//!
//! Deterministic and total: the same commands give the same bytes on every manager, and no
//! command, however mad, panics: a poisoned log entry would end every manager in a loop. A command
//! is applied as a whole or leaves nothing behind.

use super::{OUTCOMES_MAX, SlotKey, State, check_slot};
use crate::{
    cluster::{
        command::{Applied, Change, Command, Decision, Rejected},
        validate,
    },
    types::{
        Availability, Cluster, Date, Desired, JobStatus, ManagerStatus, NODE_CERT_EXPIRY, Node,
        NodeId, NodeSpec, NodeState, REASONS_MAX, ReasonCode, Role, Service, ServiceId,
        ServiceSpec, Task, TaskId, TaskState, TaskStatus, UpdateState, UpdateStatus, Version,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// How long a removed node is remembered beyond the life of the longest certificate: clocks of
/// both sides may be off by some days.
const REMOVED_GRACE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Where a command is written: its version and its date.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) version: Version,
    pub(super) date: Date,
}

impl State {
    /// Applies a committed command. `index` is the entry's version (all commands of one entry
    /// share it), `term` the term the entry was committed in.
    ///
    /// # Errors
    ///
    /// What the command was decided on no longer holds; nothing changed.
    pub fn apply(
        &mut self,
        index: Version,
        term: u64,
        command: &Command,
    ) -> Result<Applied, Rejected> {
        self.tables.applied = self.tables.applied.max(index);
        if let Some(known) = command.request.as_ref().and_then(|id| self.outcome(id)) {
            return known.clone();
        }
        // Making the cluster needs no term: it only ever works once, into an empty state.
        if command.term < term && !matches!(command.change, Change::CreateCluster { .. }) {
            return Err(Rejected::StaleTerm);
        }
        let at = At { version: index, date: command.date };
        let outcome = self.change(at, &command.change);
        if let Some(request) = &command.request {
            if self.tables.outcomes.len() >= OUTCOMES_MAX {
                self.tables.outcomes.pop_front();
            }
            self.tables.outcomes.push_back((request.clone(), outcome.clone()));
        }
        outcome
    }

    fn change(&mut self, at: At, change: &Change) -> Result<Applied, Rejected> {
        match change {
            Change::CreateCluster { cluster, node } => self.create_cluster(at, cluster, node),
            Change::UpdateCluster { expected, spec } => self.change_cluster(at, |cluster| {
                if cluster.version != *expected {
                    return Err(Rejected::OutOfSequence);
                }
                cluster.spec = (**spec).clone();
                Ok(())
            }),
            Change::RotateTokens { tokens } => self.change_cluster(at, |cluster| {
                cluster.tokens = *tokens;
                Ok(())
            }),
            Change::CreateNode { node } => self.create_node(at, node),
            Change::UpdateNode { id, expected, spec } => self.update_node(at, id, *expected, spec),
            Change::DescribeNode { id, description, address } => self.change_node(at, id, |node| {
                node.description = (**description).clone();
                node.status.address.clone_from(address);
                Ok(())
            }),
            Change::SetNodeState { id, state, message } => self.change_node(at, id, |node| {
                node.status.state = *state;
                node.status.message.clone_from(message);
                Ok(())
            }),
            Change::SetManagerStatus { id, status } => self.set_manager(at, id, status.as_ref()),
            Change::RemoveNode { id, force } => self.remove_node(at, id, *force),
            Change::CreateService { service } => self.create_service(at, service),
            Change::UpdateService { id, expected, spec } => {
                self.update_service(at, id, *expected, spec)
            }
            Change::RollbackService { id, expected } => self.rollback_service(at, id, *expected),
            Change::SetUpdateStatus { id, spec_version, status } => {
                self.set_update_status(id, *spec_version, status.as_ref())
            }
            Change::RemoveService { id } => self.remove_service(at, id),
            Change::ReplaceTasks { create, desire } => self.replace_tasks(at, create, desire),
            Change::Schedule { decisions } => {
                for decision in decisions {
                    self.schedule_one(at, decision);
                }
                Ok(Applied::Done)
            }
            Change::ReportTasks { reports } => {
                for (id, status) in reports {
                    self.report_one(at, id, status);
                }
                Ok(Applied::Done)
            }
            Change::AdoptTasks { node, tasks } => self.adopt_tasks(at, node, tasks),
            Change::RevertService { id, spec_version, message } => {
                self.revert_service(at, id, *spec_version, message)
            }
            Change::RemoveTasks { tasks } => {
                for id in tasks {
                    self.forget_task(id);
                }
                Ok(Applied::Done)
            }
            Change::SetUnlockKey { key } => self.change_cluster(at, |cluster| {
                cluster.unlock_key = *key;
                Ok(())
            }),
            Change::ForceNewCluster { manager, status } => self.force_new(at, manager, status),
            Change::RestoreCluster { node, replaces } => self.restore_to(at, node, replaces),
            Change::RotateRoot { base, rotation } => self.rotate_root(at, base, rotation),
            Change::FinishRootRotation { root } => self.finish_rotation(at, root),
            Change::PassEpochs { last } => Ok(self.pass_epochs(at, *last)),
        }
    }

    fn create_cluster(
        &mut self,
        at: At,
        cluster: &Cluster,
        node: &Node,
    ) -> Result<Applied, Rejected> {
        if self.tables.cluster.is_some() {
            return Err(Rejected::Precondition("the cluster exists already".to_owned()));
        }
        let cluster =
            Cluster { version: at.version, created: at.date, updated: at.date, ..cluster.clone() };
        let made = self.create_node(at, node)?;
        self.tables.cluster = Some(cluster);
        Ok(made)
    }

    pub(super) fn change_cluster(
        &mut self,
        at: At,
        change: impl FnOnce(&mut Cluster) -> Result<(), Rejected>,
    ) -> Result<Applied, Rejected> {
        let cluster = self.tables.cluster.as_mut().ok_or_else(|| not_found("cluster", ""))?;
        change(cluster)?;
        cluster.version = at.version;
        cluster.updated = at.date;
        Ok(Applied::Done)
    }

    pub(super) fn create_node(&mut self, at: At, node: &Node) -> Result<Applied, Rejected> {
        if self.is_removed(&node.id) {
            return Err(Rejected::Precondition(format!("node {} was removed", node.id)));
        }
        // All zeros is a key that is not known yet: that of a node which made the cluster.
        let same_key = |other: &&Node| {
            other.key_digest == node.key_digest && node.key_digest.iter().any(|byte| *byte != 0)
        };
        if let Some(known) = self.nodes().find(same_key) {
            // A join that was proposed twice, since nobody knew what became of the first proposal:
            // the machine is admitted, and under one id.
            return if known.description.machine_id == node.description.machine_id {
                Ok(Applied::Node(known.id.clone()))
            } else {
                Err(exists("node", known.id.as_str()))
            };
        }
        if self.tables.nodes.contains_key(&node.id) {
            return Err(exists("node", node.id.as_str()));
        }
        let row = Node { version: at.version, created: at.date, updated: at.date, ..node.clone() };
        self.tables.nodes.insert(node.id.clone(), Arc::new(row));
        Ok(Applied::Node(node.id.clone()))
    }

    fn set_manager(
        &mut self,
        at: At,
        id: &NodeId,
        status: Option<&ManagerStatus>,
    ) -> Result<Applied, Rejected> {
        let applied = self.change_node(at, id, |node| {
            node.manager = status.cloned();
            node.role = if status.is_some() { Role::Manager } else { Role::Worker };
            Ok(())
        })?;
        if status.is_some() {
            self.tables.demoted.remove(id);
        } else {
            self.remember_demotion(at, id);
        }
        Ok(applied)
    }

    /// Remembers that a node is no manager any more, for as long as a certificate may say that it
    /// is: one that ran out is excused with managers only.
    pub(super) fn remember_demotion(&mut self, at: At, id: &NodeId) {
        let keep = self.certificates_last();
        self.tables.demoted.retain(|_, demoted| at.date.since(*demoted) < keep);
        self.tables.demoted.insert(id.clone(), at.date);
    }

    /// Returns how long a certificate may be good that was given out before now.
    fn certificates_last(&self) -> Duration {
        let expiry = self.cluster().map_or(NODE_CERT_EXPIRY, |c| c.spec.node_cert_expiry);
        expiry.max(NODE_CERT_EXPIRY) + REMOVED_GRACE
    }

    fn is_last_manager(&self, id: &NodeId) -> bool {
        let votes = |node: &Node| node.manager.is_some() && node.spec.role == Role::Manager;
        self.node(id).is_some_and(votes) && self.nodes().filter(|n| votes(n)).count() == 1
    }

    fn update_node(
        &mut self,
        at: At,
        id: &NodeId,
        expected: Version,
        spec: &NodeSpec,
    ) -> Result<Applied, Rejected> {
        if spec.role == Role::Worker && self.is_last_manager(id) {
            return Err(Rejected::Precondition(
                "attempting to demote the last manager of the swarm".to_owned(),
            ));
        }
        self.change_node(at, id, |node| {
            if node.version != expected {
                return Err(Rejected::OutOfSequence);
            }
            node.spec = spec.clone();
            Ok(())
        })
    }

    pub(super) fn change_node(
        &mut self,
        at: At,
        id: &NodeId,
        change: impl FnOnce(&mut Node) -> Result<(), Rejected>,
    ) -> Result<Applied, Rejected> {
        let node = self.tables.nodes.get_mut(id).ok_or_else(|| not_found("node", id.as_str()))?;
        let node = Arc::make_mut(node);
        change(node)?;
        node.version = at.version;
        node.updated = at.date;
        Ok(Applied::Node(id.clone()))
    }

    pub(super) fn remove_node(
        &mut self,
        at: At,
        id: &NodeId,
        force: bool,
    ) -> Result<Applied, Rejected> {
        let node = self.node(id).ok_or_else(|| not_found("node", id.as_str()))?;
        if node.role == Role::Manager || node.manager.is_some() {
            return Err(Rejected::Precondition(format!(
                "node {id} is a cluster manager and is a member of the raft cluster. It must be \
                 demoted to worker before removal"
            )));
        }
        if !force && node.status.state != NodeState::Down {
            return Err(Rejected::Precondition(format!(
                "node {id} is not down and can't be removed"
            )));
        }
        // That a slot of a job is done stays known when the node that did it is gone.
        let counts = |task: &Task| {
            let service = self.service(&task.service);
            let current = service.and_then(|service| service.job).map(|job| job.iteration);
            task.slot > 0 && task.is_complete_job() && task.job_iteration == current
        };
        let tasks: Vec<TaskId> = self
            .tasks_on_node(id)
            .filter(|task| !counts(task))
            .map(|task| task.id.clone())
            .collect();
        for task in tasks {
            self.forget_task(&task);
        }
        self.tables.nodes.remove(id);
        // A certificate that is still good must be refused for as long as it is.
        let keep = self.certificates_last();
        self.tables.demoted.remove(id);
        self.tables.removed.retain(|_, removed| at.date.since(*removed) < keep);
        self.tables.removed.insert(id.clone(), at.date);
        Ok(Applied::Node(id.clone()))
    }

    fn create_service(&mut self, at: At, service: &Service) -> Result<Applied, Rejected> {
        if self.service_by_name(&service.spec.name).is_some() {
            return Err(exists("service", &service.spec.name));
        }
        let left = self.tasks_of_service(&service.id).next().is_some();
        if left || self.tables.services.contains_key(&service.id) {
            return Err(exists("service", service.id.as_str()));
        }
        let job = service.spec.mode.is_job();
        let row = Service {
            version: at.version,
            spec_version: at.version,
            created: at.date,
            updated: at.date,
            previous_spec: None,
            update: None,
            job: job.then_some(JobStatus { iteration: 0, last_execution: at.date }),
            ..service.clone()
        };
        self.indices.service_names.insert(row.spec.name.clone(), row.id.clone());
        self.tables.services.insert(row.id.clone(), Arc::new(row));
        Ok(Applied::Service(service.id.clone()))
    }

    fn service_mut(&mut self, id: &ServiceId) -> Result<&mut Service, Rejected> {
        let service = self.tables.services.get_mut(id);
        service.map(Arc::make_mut).ok_or_else(|| not_found("service", id.as_str()))
    }

    /// Returns the service for a change that was made on what a user read of it.
    fn service_as_read(
        &mut self,
        id: &ServiceId,
        expected: Version,
    ) -> Result<&mut Service, Rejected> {
        let service = self.service_mut(id)?;
        if service.version == expected { Ok(service) } else { Err(Rejected::OutOfSequence) }
    }

    fn update_service(
        &mut self,
        at: At,
        id: &ServiceId,
        expected: Version,
        spec: &ServiceSpec,
    ) -> Result<Applied, Rejected> {
        let service = self.service_as_read(id, expected)?;
        validate::fixed(&service.spec, spec)
            .map_err(|text| Rejected::Precondition(text.to_owned()))?;
        if service.spec.has_same_tasks(spec) && resume(service, at.date) {
            // What the update came from stays what a rollback goes back to.
            service.spec = spec.clone();
        } else if service.spec == *spec {
            service.update = None;
        } else {
            let previous = std::mem::replace(&mut service.spec, spec.clone());
            begin_iteration(service, &previous, at.date);
            service.previous_spec = Some(Box::new(previous));
            service.spec_version = at.version;
            service.update = None;
        }
        service.version = at.version;
        service.updated = at.date;
        Ok(Applied::Service(id.clone()))
    }

    fn rollback_service(
        &mut self,
        at: At,
        id: &ServiceId,
        expected: Version,
    ) -> Result<Applied, Rejected> {
        let service = self.service_as_read(id, expected)?;
        let previous = service.previous_spec.take().ok_or_else(|| no_previous(id))?;
        let left = go_back(service, at, *previous, "manually requested rollback");
        service.previous_spec = Some(Box::new(left));
        Ok(Applied::Service(id.clone()))
    }

    fn revert_service(
        &mut self,
        at: At,
        id: &ServiceId,
        spec_version: Version,
        message: &str,
    ) -> Result<Applied, Rejected> {
        let service = self.service_mut(id)?;
        let updating = service.update.as_ref().is_some_and(|it| it.state == UpdateState::Updating);
        if service.spec_version != spec_version || !updating {
            return Err(Rejected::OutOfSequence);
        }
        let previous = service.previous_spec.take().ok_or_else(|| no_previous(id))?;
        let _failed = go_back(service, at, *previous, message);
        Ok(Applied::Service(id.clone()))
    }

    fn set_update_status(
        &mut self,
        id: &ServiceId,
        spec_version: Version,
        status: Option<&UpdateStatus>,
    ) -> Result<Applied, Rejected> {
        let service = self.service_mut(id)?;
        if service.spec_version != spec_version {
            return Err(Rejected::OutOfSequence);
        }
        service.update = status.cloned();
        Ok(Applied::Service(id.clone()))
    }

    fn remove_service(&mut self, at: At, id: &ServiceId) -> Result<Applied, Rejected> {
        let row =
            self.tables.services.remove(id).ok_or_else(|| not_found("service", id.as_str()))?;
        self.indices.service_names.remove(&row.spec.name);
        let tasks: Vec<TaskId> = self.tasks_of_service(id).map(|task| task.id.clone()).collect();
        for task in tasks {
            self.raise_desired(at, &task, Desired::Remove);
        }
        Ok(Applied::Service(id.clone()))
    }

    fn raise_desired(&mut self, at: At, id: &TaskId, desired: Desired) {
        let Some(task) = self.tables.tasks.get_mut(id) else { return };
        if task.desired < desired {
            let task = Arc::make_mut(task);
            task.desired = desired;
            task.version = at.version;
            task.updated = at.date;
        }
    }

    fn replace_tasks(
        &mut self,
        at: At,
        create: &[Task],
        desire: &[(TaskId, Desired)],
    ) -> Result<Applied, Rejected> {
        let mut ids = BTreeSet::new();
        // The slots, each with what comes into it.
        let mut touched: BTreeMap<SlotKey, Vec<&Task>> = BTreeMap::new();
        for task in create {
            self.check_created(task)?;
            if !ids.insert(&task.id) {
                return Err(exists("task", task.id.as_str()));
            }
            touched.entry(SlotKey::of(task)).or_default().push(task);
        }
        let mut raised: BTreeMap<&TaskId, Desired> = BTreeMap::new();
        for (id, desired) in desire {
            if let Some(task) = self.task(id) {
                let last = raised.entry(id).or_insert(task.desired);
                *last = (*last).max(*desired);
                touched.entry(SlotKey::of(task)).or_default();
            }
        }
        for (key, created) in &touched {
            let after = self.tasks_in_slot(key).filter(|task| !task.is_complete_job());
            let after = after
                .map(|task| (raised.get(&task.id).copied().unwrap_or(task.desired), task))
                .chain(created.iter().map(|task| (task.desired, *task)));
            check_slot(after).map_err(|_| taken(key))?;
        }
        for (id, desired) in raised {
            self.raise_desired(at, id, desired);
        }
        for task in create {
            self.put_task(Task {
                version: at.version,
                created: at.date,
                updated: at.date,
                ..task.clone()
            });
        }
        Ok(Applied::Done)
    }

    fn check_created(&self, task: &Task) -> Result<(), Rejected> {
        let Some(service) = self.service(&task.service) else {
            return Err(not_found("service", task.service.as_str()));
        };
        if self.task(&task.id).is_some() {
            return Err(exists("task", task.id.as_str()));
        }
        let global = service.spec.mode.is_per_node();
        if global != (task.slot == 0) || global != task.node.is_some() {
            return Err(Rejected::Precondition(format!(
                "task {} has a slot that does not fit its service's mode",
                task.id
            )));
        }
        if task.job_iteration != service.job.map(|job| job.iteration) {
            return Err(Rejected::Precondition(format!(
                "task {} is made for another iteration of its service",
                task.id
            )));
        }
        if task.status.state > TaskState::Pending {
            return Err(Rejected::Precondition(format!(
                "task {} is new and cannot be {} yet",
                task.id, task.status.state
            )));
        }
        match &task.node {
            Some(node) if self.node(node).is_none() => Err(not_found("node", node.as_str())),
            _ => Ok(()),
        }
    }

    fn put_task(&mut self, mut task: Task) {
        // Thousands of tasks of one service are mostly its spec.
        let alike = |other: &&Task| other.spec == task.spec;
        if let Some(other) = self.tasks_of_service(&task.service).next().filter(alike) {
            task.spec = Arc::clone(&other.spec);
        }
        self.indices.add(&task);
        self.tables.tasks.insert(task.id.clone(), Arc::new(task));
    }

    fn forget_task(&mut self, id: &TaskId) {
        if let Some(task) = self.tables.tasks.remove(id) {
            self.indices.remove(&task);
        }
    }

    fn schedule_one(&mut self, at: At, decision: &Decision) {
        let Some(task) = self.tables.tasks.get_mut(&decision.task) else { return };
        if task.status.state > TaskState::Pending || !task.desired.is_wanted() {
            return;
        }
        let Some(id) = &decision.node else {
            if task.status.error != decision.error {
                let task = Arc::make_mut(task);
                task.status.error.clone_from(&decision.error);
                task.status.date = at.date;
                task.version = at.version;
                task.updated = at.date;
            }
            return;
        };
        let preassigned = match &task.node {
            Some(node) if node != id => return,
            present => present.is_some(),
        };
        let takes = |node: &Node| {
            node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
        };
        if !self.tables.nodes.get(id).is_some_and(|node| takes(node)) {
            return;
        }
        let task = Arc::make_mut(task);
        task.node = Some(id.clone());
        task.generic.clone_from(&decision.generic);
        let message = if preassigned {
            "scheduler confirmed task can run on preassigned node"
        } else {
            "scheduler assigned task to node"
        };
        task.status = TaskStatus {
            state: TaskState::Assigned,
            date: at.date,
            message: message.to_owned(),
            ..TaskStatus::default()
        };
        task.version = at.version;
        task.updated = at.date;
        self.indices.add(task);
    }

    fn report_one(&mut self, at: At, id: &TaskId, status: &TaskStatus) {
        let Some(task) = self.tables.tasks.get_mut(id) else { return };
        let needs_node = status.state.is_given();
        let falls = status.state < task.status.state;
        if falls || task.status == *status || (needs_node && task.node.is_none()) {
            return;
        }
        // What ended a task is said once; only an orphan's fate may still be told.
        if status.state == task.status.state && !status.state.is_live() {
            return;
        }
        let task = Arc::make_mut(task);
        task.status = status.clone();
        task.version = at.version;
        task.updated = at.date;
    }

    fn adopt_tasks(&mut self, at: At, node: &NodeId, tasks: &[Task]) -> Result<Applied, Rejected> {
        if self.node(node).is_none() {
            return Err(not_found("node", node.as_str()));
        }
        for task in tasks {
            self.adopt_one(at, node, task);
        }
        Ok(Applied::Done)
    }

    /// Takes over one task. What a node may say of it is how it went; what it is comes from its
    /// predecessor.
    fn adopt_one(&mut self, at: At, node: &NodeId, task: &Task) {
        if self.service(&task.service).is_none() {
            return;
        }
        if let Some(known) = self.task(&task.id) {
            if known.node.as_ref() == Some(node) {
                self.report_one(at, &task.id, &task.status);
            }
            return;
        }
        let predecessor = task.predecessor.as_ref().and_then(|id| self.task(id));
        let fits = |old: &&Task| {
            old.service == task.service && old.slot == task.slot && old.node.as_ref() == Some(node)
        };
        let Some(old) = predecessor.filter(fits).cloned() else { return };
        let adopt = self.give_way(at, &old, task);
        let recent = task.reasons.len().saturating_sub(REASONS_MAX);
        let mut adopted = Task {
            id: task.id.clone(),
            version: at.version,
            created: at.date,
            updated: at.date,
            status: task.status.clone(),
            desired: if adopt { old.goal() } else { Desired::Shutdown.max(old.desired) },
            predecessor: Some(old.id.clone()),
            delay: task.delay,
            failures: task.failures,
            reasons: task.reasons[recent..].to_vec(),
            ..old.clone()
        };
        adopted.status.state = adopted.status.state.max(TaskState::Assigned);
        self.raise_desired(at, &old.id, Desired::Shutdown);
        if old.status.state.is_live() {
            let status = TaskStatus {
                state: TaskState::Failed,
                date: at.date,
                message: "restarted by its node, which had no manager".to_owned(),
                error: "exit status lost".to_owned(),
                ..TaskStatus::default()
            };
            self.report_one(at, &old.id, &status);
        }
        self.put_task(adopted);
    }

    /// Tells whether `made`, which its node made in place of `old`, takes the slot. What the
    /// manager made for the same reason gives way where it does not run yet and `made` does.
    fn give_way(&mut self, at: At, old: &Task, made: &Task) -> bool {
        let others = self.tasks_in_slot(&SlotKey::of(old));
        // What an earlier iteration of a job came to holds no place in this one.
        let past = |task: &Task| task.is_complete_job() && task.job_iteration != old.job_iteration;
        let wanted = |task: &&Task| task.desired.is_wanted() && !past(task);
        let others: Vec<&Task> = others.filter(|task| task.id != old.id && wanted(task)).collect();
        if old.desired.may_run() {
            return !old.is_complete_job() && others.iter().all(|task| !task.desired.may_run());
        }
        let keeps = old.desired == Desired::Shutdown
            && made.status.state == TaskState::Running
            && !others.is_empty()
            && others.iter().all(|task| {
                is_restart(task)
                    && task.status.state < TaskState::Running
                    && task.spec_version == old.spec_version
            });
        let others: Vec<TaskId> = others.into_iter().map(|task| task.id.clone()).collect();
        for id in others.iter().filter(|_| keeps) {
            self.raise_desired(at, id, Desired::Shutdown);
        }
        keeps
    }
}

/// Tells whether a task was made only because the one before it ended, or seemed to have.
fn is_restart(task: &Task) -> bool {
    let last = task.reasons.last().map(|reason| reason.code);
    matches!(last, Some(ReasonCode::Restarted | ReasonCode::NodeLost | ReasonCode::LocalRestart))
}

/// Carries an unfinished update on under the spec's other options, and anew where it was paused.
/// Returns whether there is one.
fn resume(service: &mut Service, date: Date) -> bool {
    let Some(update) = &mut service.update else { return false };
    match update.state {
        UpdateState::Updating | UpdateState::RollbackStarted => {}
        UpdateState::Paused => {
            *update = UpdateStatus::begun(UpdateState::Updating, date, "update in progress");
        }
        UpdateState::RollbackPaused => {
            *update =
                UpdateStatus::begun(UpdateState::RollbackStarted, date, "rollback in progress");
        }
        UpdateState::Completed | UpdateState::RollbackCompleted => return false,
    }
    true
}

/// Gives a service its previous spec back; returns the one that it had.
fn go_back(service: &mut Service, at: At, previous: ServiceSpec, message: &str) -> ServiceSpec {
    let left = std::mem::replace(&mut service.spec, previous);
    begin_iteration(service, &left, at.date);
    service.spec_version = at.version;
    let begun = UpdateStatus::begun(UpdateState::RollbackStarted, at.date, message);
    // Jobs are not updated: another spec is another iteration.
    service.update = service.job.is_none().then_some(begun);
    service.version = at.version;
    service.updated = at.date;
    left
}

fn no_previous(id: &ServiceId) -> Rejected {
    Rejected::Precondition(format!("service {id} does not have a previous spec"))
}

fn taken(key: &SlotKey) -> Rejected {
    let place = key.node.as_ref().map_or_else(|| key.slot.to_string(), ToString::to_string);
    Rejected::Precondition(format!("slot {place} of service {} has a task already", key.service))
}

/// Sets a job off once more where its spec became another one to its tasks.
fn begin_iteration(service: &mut Service, before: &ServiceSpec, date: Date) {
    let anew = service.spec.runs_anew(before);
    if let Some(job) = service.job.as_mut().filter(|_| anew) {
        *job = JobStatus { iteration: job.iteration.saturating_add(1), last_execution: date };
    }
}

pub(super) fn not_found(kind: &str, id: &str) -> Rejected {
    Rejected::NotFound { kind: kind.to_owned(), id: id.to_owned() }
}

fn exists(kind: &str, name: &str) -> Rejected {
    Rejected::Exists { kind: kind.to_owned(), name: name.to_owned() }
}
