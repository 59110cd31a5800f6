//! Asking another node: a stream to it, opened and answered within limits, and what it means where
//! nothing comes of it.
//!
//! Knows nothing of what is asked. A node's refusal keeps its class; any other failure says that
//! the node is not available, and why.

use super::shared::{Shared, not_in_swarm};
use crate::{
    cluster::{Class, Refusal},
    transport::{ByteReceiver, ByteSender, Endpoint, StreamError},
    types::NodeId,
    util::deadline::within,
    wire::{Message, StreamRequest},
};
use std::time::Duration;

/// How long a node may take to begin.
const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// A node that does something for a user.
pub(super) enum Target {
    /// This node.
    Here,
    /// Another, by id and name.
    There(NodeId, String),
}

/// Nothing came of asking a node.
#[derive(Debug, thiserror::Error)]
#[error("node {node} is not available: {error}")]
pub(super) struct Unanswered {
    node: NodeId,
    error: StreamError,
}

impl Unanswered {
    /// Tells whether a node that cannot be asked now may be asked in a moment.
    pub(super) fn may_pass(&self) -> bool {
        match &self.error {
            StreamError::NotConnected | StreamError::Broken(_) => true,
            StreamError::Refused(refusal) => refusal.class == Class::Unavailable,
            _ => false,
        }
    }
}

impl From<Unanswered> for Refusal {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered.error {
            StreamError::Refused(refusal) => refusal,
            _ => Self::new(Class::Unavailable, unanswered.to_string()),
        }
    }
}

/// A stream to a node that took what it was asked for. Once it is dropped the node knows that nobody
/// waits any more, so it is kept as a whole, or split.
pub(super) struct Line {
    sender: ByteSender,
    answers: Answers,
}

/// What a node answers.
pub(super) struct Answers {
    node: NodeId,
    receiver: ByteReceiver,
}

/// Asks a node of this one's cluster, this one included.
pub(super) async fn ask(
    shared: &Shared,
    node: &NodeId,
    request: StreamRequest,
) -> Result<Line, Unanswered> {
    let Some(member) = shared.member() else {
        let error = StreamError::Refused(not_in_swarm());
        return Err(Unanswered { node: node.clone(), error });
    };
    Line::open(&member.endpoint, node, request).await
}

impl Line {
    async fn open(
        endpoint: &Endpoint,
        node: &NodeId,
        request: StreamRequest,
    ) -> Result<Self, Unanswered> {
        let node = node.clone();
        match endpoint.open_stream(&node, request, OPEN_LIMIT).await {
            Ok((sender, receiver)) => Ok(Self { sender, answers: Answers { node, receiver } }),
            Err(error) => Err(Unanswered { node, error }),
        }
    }

    /// Returns what the node answers. A method, so that whoever moves the line into a task does not
    /// leave its other half behind.
    pub(super) fn answers(&mut self) -> &mut Answers {
        &mut self.answers
    }

    /// Returns both directions, for two that work at once.
    pub(super) fn split(self) -> (ByteSender, Answers) {
        (self.sender, self.answers)
    }
}

impl Answers {
    fn lost(&self, error: StreamError) -> Unanswered {
        Unanswered { node: self.node.clone(), error }
    }

    /// Waits for the next frame; none where the node has said all.
    pub(super) async fn next<M: Message>(&mut self) -> Result<Option<M>, Unanswered> {
        self.receiver.receive().await.map_err(|error| self.lost(error))
    }

    /// Waits for a frame that is still to come.
    pub(super) async fn more<M: Message>(&mut self) -> Result<M, Unanswered> {
        let early = || StreamError::Broken("the node said nothing more".to_owned());
        self.next().await?.ok_or_else(|| self.lost(early()))
    }

    /// Waits so long for a frame that is still to come.
    pub(super) async fn within<M: Message>(&mut self, limit: Duration) -> Result<M, Unanswered> {
        match within(limit, self.more()).await {
            Some(frame) => frame,
            None => Err(self.lost(StreamError::Timeout(limit))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pki::{self, Identity, NodeFiles, TrustedClock},
        transport::{Config, IncomingStream},
        types::{Chore, ClusterId, Role, Trust},
        util::dns::Resolver,
        wire::ChoreFrame,
    };
    use std::sync::Arc;

    const LONG: Duration = Duration::from_secs(3_600);

    /// Asks a node that answers streams with `answer`: it asks itself, so that no packet is needed.
    fn asked<F: Future<Output = Result<(), StreamError>> + Send + 'static>(
        answer: impl Fn(IncomingStream) -> F + Copy + Send + Sync + 'static,
        limit: Duration,
    ) -> Result<ChoreFrame, Refusal> {
        let (node, date) = (NodeId::from_bits(1), pki::BUILD_DATE);
        let root = pki::create_root(date).unwrap();
        let (key, csr) = pki::new_key_and_request(None).unwrap();
        let cluster = ClusterId::from_bits(7);
        let identity = Identity { node: node.clone(), role: Role::Manager, cluster };
        let certificate = pki::sign(&root, &csr, &identity, date, LONG).unwrap();
        let trust = Trust { roots: vec![root.certificate], cross_signed: Vec::new() };
        let files = NodeFiles { trust, certificate, key };
        let (listen, clock) = ("127.0.0.1:0".parse().unwrap(), TrustedClock::fixed(date));
        smol::block_on(async {
            let config = Config { listen, clock, resolver: Resolver::default() };
            let endpoint = Endpoint::bind(config).unwrap();
            endpoint.set_identity(Some(&crate::daemon::member::credentials(&files))).unwrap();
            endpoint.set_handler(Arc::new(move |stream| {
                // Whoever asked may be gone by then.
                Box::pin(async move { drop(answer(stream).await) })
            }));
            let request = StreamRequest::Chore(Box::new(Chore::Usage));
            let mut line = Line::open(&endpoint, &node, request).await?;
            Ok(line.answers().within(limit).await?)
        })
    }

    #[test]
    fn the_class_of_a_refusal_is_kept() {
        let refused = asked(|stream| stream.refuse(Refusal::new(Class::NotFound, "gone")), LONG);
        assert_eq!(refused, Err(Refusal::new(Class::NotFound, "gone")));
    }

    #[test]
    fn an_answer_is_taken_also_where_it_is_a_refusal() {
        let frame = || ChoreFrame(Err(Refusal::new(Class::Conflict, "in use")));
        let answered = asked(
            move |stream| async move {
                let (mut sender, _) = stream.accept().await?;
                sender.send(&frame()).await?;
                sender.finish().await
            },
            LONG,
        );
        assert_eq!(answered, Ok(frame()));
    }

    #[test]
    fn a_node_that_says_nothing_is_not_available() {
        let silent = asked(
            |stream| async move {
                let (_sender, mut receiver) = stream.accept().await?;
                // Until whoever asked has gone.
                while let Ok(Some(ChoreFrame(_))) = receiver.receive().await {}
                Ok(())
            },
            Duration::from_millis(1),
        );
        let node = NodeId::from_bits(1);
        let text = format!("node {node} is not available: no answer within 1ms");
        assert_eq!(silent, Err(Refusal::new(Class::Unavailable, text)));

        let ended = asked(
            |stream| async move {
                let (sender, _) = stream.accept().await?;
                sender.finish().await
            },
            LONG,
        );
        assert_eq!(ended.unwrap_err().class, Class::Unavailable);
    }
}
