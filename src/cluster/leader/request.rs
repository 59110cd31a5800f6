//! What users ask for: checked against the state, and turned into commands.

use super::{Leader, QUEUE_MAX, Waiting};
use crate::{
    cluster::{
        Applied, Change, Class, ClusterUpdate, Effect, Refusal, Rejected, Request, Response, State,
        Ticket, join, managers, validate,
    },
    types::{
        ClusterSpec, Date, JoinToken, JoinTokens, Moment, NODE_CERT_EXPIRY_MIN, NodeId, NodeSpec,
        NodeState, RequestId, Role, Service, ServiceId, ServiceSpec, Version,
    },
};
use std::time::Duration;

/// The longest spec of a service, encoded: every task carries a copy of it, in the log and in the
/// memory of every manager.
const SPEC_BYTES_MAX: usize = 256 * 1024;

/// The heartbeat periods that are taken: below 100 ms nodes do little else, and an hour is beyond
/// what any link needs.
const HEARTBEAT_RANGE: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(3_600));

/// The election timeouts that are taken: below 200 ms one write to a slow card looks like the
/// leader's death, and a cluster that is without a leader for two minutes is none.
const ELECTION_RANGE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// How the outcome of a command answers its request.
#[derive(Debug, Clone)]
pub(in crate::cluster) enum Answer {
    /// Done.
    Done,
    /// With the id of the service.
    Created,
    /// With the node's admission.
    Admitted,
}

/// What became of a request before anything is committed.
#[derive(Debug)]
pub(in crate::cluster) enum Prepared {
    /// There is nothing to commit.
    Answer(Response),
    /// Commit these; the outcome of the first is the answer.
    Propose { id: Option<RequestId>, changes: Vec<Change>, answer: Answer },
}

impl Leader {
    pub(super) fn enqueue(&mut self, ticket: Ticket, request: Request, effects: &mut Vec<Effect>) {
        if self.queue.len() >= QUEUE_MAX {
            let message = "the manager has too many requests under way; try again";
            let result = Err(Refusal::new(Class::Unavailable, message));
            effects.push(Effect::Reply { ticket, result });
            return;
        }
        self.queue.push_back(Waiting { ticket, request, failures: 0 });
    }

    /// Turns an outcome into the answer of its request.
    pub(super) fn answer(
        state: &State,
        answer: Answer,
        outcome: Result<Applied, Rejected>,
    ) -> Result<Response, Refusal> {
        match (answer, outcome.map_err(Refusal::from)?) {
            (Answer::Created, Applied::Service(id)) => Ok(Response::Created(id)),
            (Answer::Admitted, Applied::Node(id)) => join::admission(state, &id),
            _ => Ok(Response::Done),
        }
    }

    pub(super) fn prepare(
        &mut self,
        state: &State,
        (now, date): (Moment, Date),
        request: &Request,
    ) -> Result<Prepared, Refusal> {
        if let Some((answer, outcome)) = remembered(state, request) {
            return Self::answer(state, answer, outcome).map(Prepared::Answer);
        }
        let one = |change, answer| {
            Ok(Prepared::Propose { id: request.id().cloned(), changes: vec![change], answer })
        };
        match request {
            Request::Read(query) => self.read(state, (now, date), query).map(Prepared::Answer),
            Request::CreateService { spec, .. } => {
                validate::service_spec(spec)?;
                check_size(spec)?;
                let id = ServiceId::generate(&mut self.random);
                let service = Box::new(new_service(id, (**spec).clone(), date));
                one(Change::CreateService { service }, Answer::Created)
            }
            Request::UpdateService { id, version, spec, .. } => {
                check_update(find_service(state, id)?, *version, spec)?;
                let (id, expected, spec) = (id.clone(), *version, spec.clone());
                one(Change::UpdateService { id, expected, spec }, Answer::Done)
            }
            Request::RollbackService { id, version, .. } => {
                let _: &Service = find_service(state, id)?;
                let change = Change::RollbackService { id: id.clone(), expected: *version };
                one(change, Answer::Done)
            }
            Request::RemoveService { id, .. } => {
                let _: &Service = find_service(state, id)?;
                one(Change::RemoveService { id: id.clone() }, Answer::Done)
            }
            Request::UpdateNode { id, version, spec, .. } => {
                check_node_spec(state, id, spec)?;
                let (id, expected, spec) = (id.clone(), *version, Box::new(spec.clone()));
                one(Change::UpdateNode { id, expected, spec }, Answer::Done)
            }
            Request::RemoveNode { id, force, .. } => {
                check_node_removal(state, id, *force)?;
                one(Change::RemoveNode { id: id.clone(), force: *force }, Answer::Done)
            }
            Request::UpdateCluster(asked) => self.prepare_cluster(state, asked),
            Request::Join(join) => join::prepare(state, &mut self.random, date, join),
            Request::Renew(renew) => join::renew(state, date, renew).map(Prepared::Answer),
            Request::Readmit(renew) => join::readmit(state, date, renew),
            Request::TakeRole(asked) => managers::take_role(state, asked),
            Request::Certified { node, root } => {
                if state.node(node).is_some() {
                    self.certified.insert(node.clone(), *root);
                    self.due.told.insert(node.clone());
                }
                Ok(Prepared::Answer(Response::Done))
            }
        }
    }

    fn prepare_cluster(
        &mut self,
        state: &State,
        asked: &ClusterUpdate,
    ) -> Result<Prepared, Refusal> {
        let cluster = join::cluster(state)?;
        if cluster.version != asked.version {
            return Err(Rejected::OutOfSequence.into());
        }
        check_cluster_spec(&asked.spec)?;
        let spec = Box::new(asked.spec.clone());
        let mut changes = vec![Change::UpdateCluster { expected: asked.version, spec }];
        let unlock_key = match cluster.unlock_key {
            _ if !asked.spec.autolock => None,
            Some(key) if !asked.rotate_unlock_key => Some(key),
            _ => Some(asked.fresh_unlock_key),
        };
        if unlock_key != cluster.unlock_key {
            changes.push(Change::SetUnlockKey { key: unlock_key });
        }
        if asked.rotate_worker_token || asked.rotate_manager_token {
            use crate::types::Entropy;
            let mut draw = |rotate: bool, token: JoinToken| {
                if rotate { JoinToken(self.random.next_u128()) } else { token }
            };
            let tokens = JoinTokens {
                worker: draw(asked.rotate_worker_token, cluster.tokens.worker),
                manager: draw(asked.rotate_manager_token, cluster.tokens.manager),
            };
            changes.push(Change::RotateTokens { tokens });
        }
        if let Some(rotation) = &asked.next_root {
            let (base, rotation) = (cluster.root.digest, rotation.clone());
            changes.push(Change::RotateRoot { base, rotation });
        }
        let id = Some(asked.request.clone());
        Ok(Prepared::Propose { id, changes, answer: Answer::Done })
    }
}

/// Returns what became of a request that was carried out before, where it is remembered.
fn remembered(state: &State, request: &Request) -> Option<(Answer, Result<Applied, Rejected>)> {
    let id = request.id()?;
    let answer = match request {
        Request::CreateService { .. } => Answer::Created,
        _ => Answer::Done,
    };
    state.outcome(id).map(|outcome| (answer, outcome.clone()))
}

fn new_service(id: ServiceId, spec: ServiceSpec, date: Date) -> Service {
    Service {
        id,
        version: Version::ZERO,
        created: date,
        updated: date,
        spec,
        spec_version: Version::ZERO,
        previous_spec: None,
        update: None,
        job: None,
    }
}

pub(in crate::cluster) fn find_service<'a>(
    state: &'a State,
    id: &ServiceId,
) -> Result<&'a Service, Refusal> {
    let missing = || Refusal::new(Class::NotFound, format!("service {id} not found"));
    state.service(id).ok_or_else(missing)
}

fn check_size(spec: &ServiceSpec) -> Result<(), Refusal> {
    let size = postcard::experimental::serialized_size(spec).unwrap_or(usize::MAX);
    if size > SPEC_BYTES_MAX {
        let message = format!("the service spec has {size} bytes, {SPEC_BYTES_MAX} are allowed");
        return Err(Refusal::new(Class::Invalid, message));
    }
    Ok(())
}

pub(in crate::cluster) fn check_update(
    service: &Service,
    version: Version,
    spec: &ServiceSpec,
) -> Result<(), Refusal> {
    if service.version != version {
        return Err(Rejected::OutOfSequence.into());
    }
    validate::service_update(&service.spec, spec)?;
    check_size(spec)
}

fn check_node_spec(state: &State, id: &NodeId, spec: &NodeSpec) -> Result<(), Refusal> {
    let missing = || Refusal::new(Class::NotFound, format!("node {id} not found"));
    let node = state.node(id).ok_or_else(missing)?;
    managers::check_role(state, node, spec.role)
}

fn check_node_removal(state: &State, id: &NodeId, force: bool) -> Result<(), Refusal> {
    let missing = || Refusal::new(Class::NotFound, format!("node {id} not found"));
    let node = state.node(id).ok_or_else(missing)?;
    if node.role == Role::Worker && !force && node.status.state != NodeState::Down {
        let message = format!("node {id} is not down and can't be removed");
        return Err(Refusal::new(Class::Conflict, message));
    }
    Ok(())
}

/// Checks the options of a cluster.
///
/// # Errors
///
/// One is out of its range.
pub fn check_cluster_spec(spec: &ClusterSpec) -> Result<(), Refusal> {
    let invalid = |message: String| Err(Refusal::new(Class::Invalid, message));
    let (least, most) = HEARTBEAT_RANGE;
    if spec.heartbeat_period < least || spec.heartbeat_period > most {
        return invalid(format!(
            "the heartbeat period is {:?}; {least:?} to {most:?} is allowed",
            spec.heartbeat_period
        ));
    }
    let (least, most) = ELECTION_RANGE;
    if spec.election_timeout < least || spec.election_timeout > most {
        return invalid(format!(
            "the election timeout is {:?}; {least:?} to {most:?} is allowed",
            spec.election_timeout
        ));
    }
    if spec.node_cert_expiry < NODE_CERT_EXPIRY_MIN {
        return invalid("certificate expiry must be at least 1h0m0s".to_owned());
    }
    if spec.snapshot_interval == 0 {
        return invalid("the snapshot interval must be at least 1".to_owned());
    }
    Ok(())
}
