//! What the leader wants done, carried out: proposals, messages, answers, certificates.
//!
//! Nothing here waits: what takes time runs beside the loop and tells it the end.

use super::{
    BARRIER_LIMIT, Bootstrap, Manager, News, PROPOSE_LIMIT, SIGN_LIMIT, Waiting, answer,
    group::NO_LEADER, requests::not_leader, unavailable,
};
use crate::{
    cluster::{
        self, Admission, Applied, Class, Command, Effect, Event, Refusal, Rejected, Response,
        Ticket,
    },
    consensus::ProposeError,
    node::{
        handle::ManagerCall,
        ports::{Authority, Host, Log, Peers},
        wait,
    },
    types::Cluster,
};

impl<H: Host, L: Log, P: Peers, A: Authority> Manager<H, L, P, A> {
    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Propose(commands) => self.propose(commands),
                Effect::Send { node, message } => self.peers.send_to_worker(&node, message),
                Effect::Reply { ticket, result } => self.reply(ticket, result),
                Effect::SetGroup(members) => self.set_group(members),
                Effect::Disconnect { node } => self.peers.disconnect(&node),
            }
        }
    }

    /// Proposes a batch. A leader has one under way at most; one of its predecessor's may still
    /// be, and then this one waits for it, since both would be decided on the same state. A disk
    /// that hangs is given nothing more: what is queued behind its write would be so for ever.
    pub(super) fn propose(&mut self, commands: Vec<Command>) {
        if self.proposals.under_way.is_some() || self.disk.is_stuck() {
            self.proposals.next = Some(commands);
            return;
        }
        self.disk.expect(self.host.now());
        self.proposals.last += 1;
        let number = self.proposals.last;
        self.proposals.under_way = Some(number);
        let entry = cluster::encode_entry(&commands);
        let (host, log, news) = (self.host.clone(), self.log.clone(), self.news.clone());
        self.host.spawn(async move {
            // The log keeps to the limit itself; ours only makes sure that the loop hears of it.
            let propose = log.propose(entry, PROPOSE_LIMIT);
            let result = wait::within(&host, PROPOSE_LIMIT * 2, propose).await;
            let result = result.unwrap_or_else(|| Err(ProposeError::Timeout(PROPOSE_LIMIT * 2)));
            let _ended = news.send(News::Proposed { number, result }).await;
        });
    }

    /// A proposal ended. What was committed has been applied by now, and told as that.
    pub(super) fn proposed(&mut self, number: u64, result: Result<u64, ProposeError>) {
        if self.proposals.under_way != Some(number) {
            return;
        }
        self.proposals.under_way = None;
        self.look_at_disk();
        let cut_off = matches!(result, Err(ProposeError::Timeout(_))) && self.lacks_quorum();
        let health = match &result {
            _ if cut_off => Some(NO_LEADER.to_owned()),
            Err(ProposeError::Timeout(limit)) => {
                Some(format!("a change of the cluster was not on disk after {limit:?}"))
            }
            _ => None,
        };
        if !self.disk.is_stuck() {
            self.shared.set(|status| status.manager_health = health);
        }
        if self.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.proposed) {
            self.bootstrap_ended(&result);
        }
        if cut_off {
            self.note_cut_off();
        }
        if let Some(commands) = self.proposals.next.take() {
            // Kept once more where the disk hangs.
            self.propose(commands);
        } else if let Err(error) = result {
            tracing::warn!(%error, "a change of the cluster was not committed");
            self.step(Event::ProposalFailed { error: error.to_string() });
        }
    }

    pub(super) fn take_call(&mut self, call: ManagerCall) {
        match call {
            ManagerCall::Request { request, relayed, deadline, reply } => {
                if relayed && self.leader.is_none() {
                    return answer(&reply, Err(not_leader()));
                }
                if let Some(refusal) = self.disk.refusal()
                    && self.leadership.leading
                    && !request.is_read()
                {
                    return answer(&reply, Err(refusal));
                }
                let now = self.host.now();
                // Without a leader anywhere an election is under way, and it is worth waiting for.
                if let Some(ticket) = self.requests.hold(request, (now, deadline), relayed, reply) {
                    self.forward(ticket);
                }
            }
            ManagerCall::Bootstrap { command, deadline, reply } => {
                if self.state.cluster().is_some() {
                    // The command itself tells a repetition from a second cluster.
                    let known = command.request.as_ref().and_then(|id| self.state.outcome(id));
                    let text = "this node is already part of a swarm";
                    let refusal = Refusal::new(Class::Conflict, text);
                    let result = known.cloned().map_or(Err(refusal), |o| o.map_err(Refusal::from));
                    return answer(&reply, result);
                }
                if let Some(before) = self.bootstrap.take() {
                    let text = "another request to make the cluster took this one's place";
                    answer(&before.reply, Err(unavailable(text)));
                }
                self.bootstrap = Some(Bootstrap { command, deadline, reply, proposed: false });
                self.propose_bootstrap();
            }
            ManagerCall::Snapshot { reply } => answer(&reply, Ok(self.state.encode_snapshot())),
            #[cfg(test)]
            ManagerCall::RebuildLeader => self.rebuild(),
            #[cfg(test)]
            ManagerCall::Inspect { reply } => answer(&reply, self.state.clone()),
        }
    }

    /// Gives a request to the leader; a read only once the barrier is passed.
    pub(super) fn pass_on(&mut self, ticket: Ticket) {
        self.expect_quorum();
        if !self.requests.needs_barrier(ticket) || self.reads_at_once() {
            if let Some(request) = self.requests.release(ticket) {
                self.step(Event::Request { ticket, request });
            }
            return;
        }
        let Some(deadline) = self.requests.deadline_of(ticket) else { return };
        let limit = deadline.since(self.host.now()).min(BARRIER_LIMIT);
        let (host, log, news) = (self.host.clone(), self.log.clone(), self.news.clone());
        self.host.spawn(async move {
            let result = wait::within(&host, limit, log.read_barrier(limit)).await;
            let result = result.unwrap_or(Err(ProposeError::Timeout(limit)));
            let _ended = news.send(News::Barrier { ticket, result }).await;
        });
    }

    pub(super) fn barrier_passed(&mut self, ticket: Ticket, result: Result<(), ProposeError>) {
        match result {
            Ok(()) if self.leader.is_some() => {
                if let Some(request) = self.requests.release(ticket) {
                    self.step(Event::Request { ticket, request });
                }
            }
            // Whoever leads next gets it.
            Ok(()) | Err(ProposeError::NotLeader { .. }) => self.forward_soon(),
            Err(error) => self.requests.refuse(ticket, unavailable(&error.to_string())),
        }
    }

    fn reply(&mut self, ticket: Ticket, result: Result<Response, Refusal>) {
        let Some(Waiting { csr, reply }) = self.requests.take(ticket) else { return };
        let (result, admission) = match (result, &csr) {
            (Ok(Response::Admitted(admission)), Some(_)) if admission.certificate.is_empty() => {
                (None, Some(admission))
            }
            (result, _) => (Some(result), None),
        };
        if let Some(result) = result {
            return answer(&reply, result);
        }
        let (Some(admission), Some(csr), Some(cluster)) =
            (admission, csr, self.state.cluster().cloned())
        else {
            let text = "a node was admitted to a cluster that does not exist";
            return answer(&reply, Err(Refusal::new(Class::Internal, text)));
        };
        let (host, authority) = (self.host.clone(), self.authority.clone());
        self.host.spawn(async move {
            let result = sign(&host, &authority, &cluster, &csr, *admission).await;
            answer(&reply, result);
        });
    }

    /// Proposes the command that makes the cluster, where this member leads.
    pub(super) fn propose_bootstrap(&mut self) {
        if !self.leadership.leading || self.proposals.under_way.is_some() {
            return;
        }
        let Some(bootstrap) = &mut self.bootstrap else { return };
        bootstrap.command.term = self.leadership.term;
        bootstrap.proposed = true;
        let command = bootstrap.command.clone();
        self.propose(vec![command]);
    }

    pub(super) fn answer_bootstrap(&mut self, outcomes: &[(Command, Result<Applied, Rejected>)]) {
        let ours = |bootstrap: &Bootstrap| {
            outcomes.iter().find(|(command, _)| *command == bootstrap.command)
        };
        let Some((_, outcome)) = self.bootstrap.as_ref().and_then(ours) else { return };
        let result = outcome.clone().map_err(Refusal::from);
        if let Some(bootstrap) = self.bootstrap.take() {
            answer(&bootstrap.reply, result);
        }
    }

    fn bootstrap_ended(&mut self, result: &Result<u64, ProposeError>) {
        let Some(bootstrap) = &mut self.bootstrap else { return };
        bootstrap.proposed = false;
        match result {
            // An entry that was committed was applied, and answered.
            Ok(_) => {}
            // Tried again when this member leads next, as long as somebody waits.
            Err(ProposeError::NotLeader { .. } | ProposeError::Timeout(_)) => {}
            Err(error) => {
                let refusal = unavailable(&error.to_string());
                if let Some(bootstrap) = self.bootstrap.take() {
                    answer(&bootstrap.reply, Err(refusal));
                }
            }
        }
    }
}

async fn sign<H: Host, A: Authority>(
    host: &H,
    authority: &A,
    cluster: &Cluster,
    csr: &[u8],
    admission: Admission,
) -> Result<Response, Refusal> {
    let signed = wait::within(host, SIGN_LIMIT, authority.sign(cluster, csr, admission)).await;
    match signed {
        Some(Ok(admission)) => Ok(Response::Admitted(Box::new(admission))),
        Some(Err(refusal)) => Err(refusal),
        None => Err(unavailable("the certificate was not signed in time; try again")),
    }
}
