//! The answering side: connections that others make, and the streams on them.

use super::{
    HEADER_LIMIT, ask,
    authorise::{Peer, Trusted, may},
    endpoint::{Inner, Worker},
    judge::Holder,
    outbox::{Outgoing, outbox},
    peers, relay,
    stream::{ByteReceiver, ByteSender, StreamError, from_quic, within},
    tls::{Close, Ready},
};
use crate::{
    cluster::{Class, Refusal},
    pki::{self, Identity, Shown, Standing},
    types::{FromWorker, LeaderAt, NodeId, PeerInput, Role},
    wire::{self, DecodeError, Message, STRANGER_LEN_MAX, StreamReply, StreamRequest},
};
use futures_lite::FutureExt as _;
use rustls_pki_types::CertificateDer;
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

/// Connections at once: five thousand workers, each of which may just have replaced its own.
const CONNECTIONS_MAX: usize = 10_240;

/// Connections at once of peers that showed no certificate, or, on a worker, any: a rack that joins
/// at once, and no more than a board can bear of strangers.
const GUESTS_MAX: usize = 64;

/// How long such a connection lives: a join waits for one commit.
const GUEST_LIMIT: Duration = Duration::from_secs(30);

/// From so many connections on, a peer must first prove its address: before that the round trip
/// is worth more.
const UNPROVEN_MAX: usize = 256;

/// What a worker reads that asks for a session in the middle of an election.
const NO_LEADER: &str = "there is no leader at the moment; try again";

/// Answers one stream. It runs as a task of its own and ends with the stream.
pub type Handler =
    Arc<dyn Fn(IncomingStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A stream that another node opened, or this one to itself, and that it may open.
#[derive(Debug)]
pub struct IncomingStream {
    /// Who, of the role that counts; none only for [`StreamRequest::Join`].
    pub peer: Option<Identity>,
    /// How far the peer's certificate counts by itself.
    pub standing: Standing,
    /// What it wants. A join's address and key are as the connection and the key itself prove them.
    pub request: StreamRequest,
    /// To the peer; the first frame is a [`StreamReply`].
    pub sender: ByteSender,
    /// From the peer, after its request.
    pub receiver: ByteReceiver,
}

impl IncomingStream {
    /// Grants the request, and returns the stream.
    ///
    /// # Errors
    ///
    /// The stream ended.
    pub async fn accept(mut self) -> Result<(ByteSender, ByteReceiver), StreamError> {
        within(HEADER_LIMIT, self.sender.send(&StreamReply::Ready)).await?;
        Ok((self.sender, self.receiver))
    }

    /// Takes the one message that comes after the request and answers it with one. The request is
    /// granted with the answer, in one piece: packets are most of what a small call costs.
    ///
    /// # Errors
    ///
    /// The stream ended, or what comes is no such message.
    pub async fn serve_call<Q: Message, A: Message, F: Future<Output = A>>(
        mut self,
        answer: impl FnOnce(Q) -> F,
    ) -> Result<(), StreamError> {
        let Some(call) = self.receiver.receive().await? else { return Ok(()) };
        let answer = answer(call).await;
        let mut bytes = wire::encode(&StreamReply::Ready)?;
        bytes.extend(wire::encode(&answer)?);
        self.sender.write_all(&bytes).await?;
        self.sender.finish().await?;
        // Dropped before its end, a stream costs a packet that says so.
        self.receiver.read().await.map(|_| ())
    }

    /// Answers with one message, and ends the stream once the peer has it.
    ///
    /// # Errors
    ///
    /// The stream ended.
    pub async fn answer(self, reply: &StreamReply) -> Result<(), StreamError> {
        answer(self.sender, reply).await
    }

    /// Refuses the request.
    ///
    /// # Errors
    ///
    /// The stream ended.
    pub async fn refuse(self, refusal: Refusal) -> Result<(), StreamError> {
        answer(self.sender, &StreamReply::Refused(refusal)).await
    }
}

async fn answer(mut sender: ByteSender, reply: &StreamReply) -> Result<(), StreamError> {
    within(HEADER_LIMIT, async {
        sender.send(reply).await?;
        sender.finish_and_flush().await
    })
    .await
}

/// Takes connections until the endpoint is closed.
pub(super) async fn accept(inner: Arc<Inner>) {
    while let Some(incoming) = inner.quic.accept().await {
        let count = inner.quic.open_connections();
        if count > CONNECTIONS_MAX {
            incoming.refuse();
        } else if count > UNPROVEN_MAX && !incoming.remote_address_validated() {
            // An error means that it was proven meanwhile, or the peer is gone.
            let _outcome = incoming.retry();
        } else {
            smol::spawn(greet(inner.clone(), incoming)).detach();
        }
    }
}

async fn greet(inner: Arc<Inner>, incoming: quinn::Incoming) {
    let Ok(connecting) = incoming.accept() else { return };
    let handshake =
        async { connecting.await.map_err(|e| StreamError::Broken(super::tls::explain(&e))) };
    let Ok(connection) = within(HEADER_LIMIT, handshake).await else { return };
    let Some(ready) = inner.state().ready.clone() else {
        Close::Done.apply(&connection);
        return;
    };
    let manages = ready.identity.role == Role::Manager;
    match chain(&connection) {
        None if manages => guest(inner, ready, connection, None).await,
        None => Close::NoMember.apply(&connection),
        Some(chain) => match inner.judge.holder(&ready.anchors, Shown::Member, &chain) {
            Some(peer) if peer.identity.cluster == ready.identity.cluster => {
                if manages {
                    member(inner, ready, connection, peer).await;
                } else {
                    // No state tells a worker whose certificate of a manager still counts, and no
                    // manager needs to connect to it.
                    guest(inner, ready, connection, Some(peer.into_worker())).await;
                }
            }
            _ => Close::NoMember.apply(&connection),
        },
    }
}

/// Returns the certificates that the peer showed, its own first.
pub(super) fn chain(connection: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Some(*chain).filter(|chain| !chain.is_empty())
}

/// Returns the manager at the other end of a connection that this node made; none where what is
/// there is none of this cluster, or was removed.
pub(super) fn manager_at(
    inner: &Inner,
    ready: &Ready,
    connection: &quinn::Connection,
) -> Option<Holder> {
    let holder = inner.judge.holder(&ready.anchors, Shown::Manager, &chain(connection)?)?;
    let fits = holder.identity.role == Role::Manager
        && holder.identity.cluster == ready.identity.cluster
        && !inner.state().denied.contains(&holder.identity.node);
    fits.then_some(holder)
}

/// Serves whoever comes with one question: a node that joins, or that looks for managers where
/// there is none any more.
async fn guest(
    inner: Arc<Inner>,
    ready: Arc<Ready>,
    connection: quinn::Connection,
    peer: Option<Holder>,
) {
    {
        let mut state = inner.state();
        if state.guests >= GUESTS_MAX {
            Close::Busy.apply(&connection);
            return;
        }
        state.guests += 1;
    }
    let streams = async {
        streams(inner.clone(), ready, connection.clone(), peer).await;
        Ok(())
    };
    let _outcome = within(GUEST_LIMIT, streams).await;
    Close::Done.apply(&connection);
    inner.state().guests -= 1;
}

async fn member(inner: Arc<Inner>, ready: Arc<Ready>, connection: quinn::Connection, peer: Holder) {
    let id = connection.stable_id();
    {
        let mut state = inner.state();
        if state.denied.contains(&peer.identity.node) {
            Close::Removed.apply(&connection);
            return;
        }
        super::tls::admit(&connection);
        let held = (peer.identity.node.clone(), connection.clone());
        let _none = state.connections.insert(id, held);
    }
    let known = inner.judge.peer(&peer).identity;
    peers::note_caller(&inner, &known.node, known.role, connection.remote_address());
    streams(inner.clone(), ready, connection, Some(peer)).await;
    let _held = inner.state().connections.remove(&id);
}

/// Serves the streams that the peer opens, until the connection ends.
pub(super) async fn streams(
    inner: Arc<Inner>,
    ready: Arc<Ready>,
    connection: quinn::Connection,
    peer: Option<Holder>,
) {
    while let Ok(pair) = connection.accept_bi().await {
        let (inner, connection, peer) = (inner.clone(), connection.clone(), peer.clone());
        // Renewed credentials may carry another role.
        let ready = inner.state().ready.clone().unwrap_or_else(|| ready.clone());
        smol::spawn(async move {
            // A stream that fails concerns its two ends alone, and the other one saw it fail.
            let _outcome = stream(inner, ready, connection, peer, from_quic(pair)).await;
        })
        .detach();
    }
}

/// As [`streams`], of a named type: passing on a stream makes connections, whose streams are served
/// by this again.
pub(super) fn boxed_streams(
    inner: Arc<Inner>,
    ready: Arc<Ready>,
    connection: quinn::Connection,
    peer: Option<Holder>,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(streams(inner, ready, connection, peer))
}

/// Reads what the stream is for; less of those who come with one question.
async fn header(
    ready: &Ready,
    holder: Option<&Holder>,
    receiver: &mut ByteReceiver,
) -> Result<Option<StreamRequest>, StreamError> {
    let manages = |holder: &Holder| holder.identity.role == Role::Manager;
    let known = holder.is_some_and(|it| ready.identity.role == Role::Manager || manages(it));
    let max = if known { usize::MAX } else { STRANGER_LEN_MAX };
    within(HEADER_LIMIT, receiver.receive_up_to(max)).await
}

async fn stream(
    inner: Arc<Inner>,
    ready: Arc<Ready>,
    connection: quinn::Connection,
    holder: Option<Holder>,
    (sender, mut receiver): (ByteSender, ByteReceiver),
) -> Result<(), StreamError> {
    let mut request = match header(&ready, holder.as_ref(), &mut receiver).await {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(()),
        Err(StreamError::Decode(error)) => {
            let newer =
                matches!(error, DecodeError::UnknownVariant(_) | DecodeError::UnknownVersion(_));
            let class = if newer { Class::Unsupported } else { Class::Invalid };
            return refuse(sender, class, error.to_string()).await;
        }
        Err(error) => return Err(error),
    };
    // As of now: the state may know more of the node than its certificate, or than a moment ago.
    let peer = holder.as_ref().map(|holder| inner.judge.peer(holder));
    if let Some(peer) = &peer
        && inner.state().denied.contains(&peer.identity.node)
    {
        Close::Removed.apply(&connection);
        return Ok(());
    }
    if let Some(reply) = refusal(ready.identity.role, peer.as_ref(), holder.as_ref(), &request) {
        return answer(sender, &reply).await;
    }
    if let Some(reply) = known(&inner, &ready, &request) {
        return answer(sender, &reply).await;
    }
    let standing = holder.as_ref().map_or_else(Standing::default, Holder::standing);
    let peer = peer.map(|peer| peer.identity);
    let address = address_of(&connection);
    match (&mut request, peer.clone()) {
        (StreamRequest::Session, Some(peer)) => {
            let leader = inner.state().leader.clone();
            let caller = Caller { node: peer.node, address, connection, via: None };
            return match leader {
                LeaderAt::Here => session(inner, caller, sender, receiver).await,
                LeaderAt::There(leader) => passed_on(inner, caller, leader, sender, receiver).await,
                LeaderAt::Nowhere => refuse(sender, Class::NotLeader, NO_LEADER.to_owned()).await,
            };
        }
        (StreamRequest::SessionOf { node, address }, Some(via)) => {
            let (node, address) = (node.clone(), std::mem::take(address));
            let caller = Caller { node, address, connection, via: Some(via.node) };
            return session(inner, caller, sender, receiver).await;
        }
        (StreamRequest::Via { node, request }, _) => {
            let (node, request) = (node.clone(), (**request).clone());
            return relay::via(&inner, peer, node, request, (sender, receiver)).await;
        }
        (StreamRequest::Join(join), _) => {
            // What the connection proves is not taken from the message.
            join.address = address;
            match pki::request_key_digest(&join.csr) {
                Ok(digest) => join.key_digest = digest,
                Err(error) => return refuse(sender, Class::Invalid, error.to_string()).await,
            }
        }
        _ => {}
    }
    let Some(handler) = inner.state().handler.clone() else {
        let message = "the node is only starting; try again".to_owned();
        return refuse(sender, Class::Unavailable, message).await;
    };
    handler(IncomingStream { peer, standing, request, sender, receiver }).await;
    Ok(())
}

/// Returns the answer where the endpoint itself knows it.
fn known(inner: &Inner, ready: &Ready, request: &StreamRequest) -> Option<StreamReply> {
    match request {
        StreamRequest::Root => {
            let certificate = ready.trust.roots.first().cloned().unwrap_or_default();
            Some(StreamReply::Root { certificate, date: inner.clock.date() })
        }
        StreamRequest::Trust => {
            Some(StreamReply::Trust(inner.judge.trust().unwrap_or_else(|| ready.trust.clone())))
        }
        StreamRequest::Managers => Some(StreamReply::Managers(ask::told(inner))),
        _ => None,
    }
}

/// Returns what a peer is told that may not open this stream.
fn refusal(
    own: Role,
    peer: Option<&Peer>,
    holder: Option<&Holder>,
    request: &StreamRequest,
) -> Option<StreamReply> {
    if !may(own, peer, request) {
        if peer.is_some_and(|peer| peer.trusted != Trusted::Fully) {
            return Some(StreamReply::RenewFirst);
        }
        let message = match (peer, own) {
            (None, _) => "a certificate of this cluster is needed for that",
            (_, Role::Worker) => "this node is not a manager",
            _ => "only managers may ask for that",
        };
        return Some(StreamReply::Refused(Refusal::new(Class::Forbidden, message)));
    }
    let (class, message) = foreign_key(holder, request)?;
    Some(StreamReply::Refused(Refusal::new(class, message)))
}

/// Returns why a request for a certificate is refused: whoever asks proved one key in the
/// handshake, and gets a certificate of no other.
fn foreign_key(holder: Option<&Holder>, request: &StreamRequest) -> Option<(Class, String)> {
    let (StreamRequest::Renew { csr } | StreamRequest::TakeRole { csr, .. }) = request else {
        return None;
    };
    match pki::request_key_digest(csr) {
        Ok(digest) if holder.is_some_and(|holder| holder.key_digest == digest) => None,
        Ok(_) => {
            let text = "the request is for another key than that of the certificate";
            Some((Class::Forbidden, text.to_owned()))
        }
        Err(error) => Some((Class::Invalid, error.to_string())),
    }
}

async fn refuse(sender: ByteSender, class: Class, message: String) -> Result<(), StreamError> {
    answer(sender, &StreamReply::Refused(Refusal::new(class, message))).await
}

/// Returns the address that a peer is seen at, without a port. It changes while a connection stands,
/// where the peer's machine gets another.
fn address_of(connection: &quinn::Connection) -> String {
    connection.remote_address().ip().to_canonical().to_string()
}

/// Whose session it is, and by which way it comes.
struct Caller {
    node: NodeId,
    /// Where the node was seen when the session began.
    address: String,
    /// The way: to the worker, or to the manager that passes its session on.
    connection: quinn::Connection,
    /// The manager that passes it on.
    via: Option<NodeId>,
}

impl Caller {
    /// Returns where the node is seen now, as far as this manager sees it itself.
    fn address(&self) -> String {
        match self.via {
            Some(_) => self.address.clone(),
            None => address_of(&self.connection),
        }
    }
}

/// A session as it is kept here.
struct Kept {
    inner: Arc<Inner>,
    node: NodeId,
    number: u64,
    outgoing: Outgoing,
    /// Closed when another leads.
    reign: async_channel::Receiver<()>,
}

impl Kept {
    /// Keeps a session in place of the one before; none where the node was removed, or somebody
    /// else leads by now.
    fn new(inner: &Arc<Inner>, leader: &LeaderAt, caller: &Caller) -> Option<Self> {
        let (outbox, outgoing) = outbox();
        let mut state = inner.state();
        if state.denied.contains(&caller.node) || state.leader != *leader {
            return None;
        }
        state.next_session += 1;
        let number = state.next_session;
        let (connection, relayed) = (caller.connection.clone(), caller.via.is_some());
        let worker = Worker { session: number, connection, relayed, outbox };
        let before = state.workers.insert(caller.node.clone(), worker);
        if let Some(before) = before
            && !before.relayed
            && before.connection.stable_id() != caller.connection.stable_id()
        {
            Close::Replaced.apply(&before.connection);
        }
        let (inner, node) = (Arc::clone(inner), caller.node.clone());
        let reign = state.reign.ended.clone();
        Some(Self { inner, node, number, outgoing, reign })
    }

    /// Lets go of it; returns whether it was the node's last.
    fn end(inner: &Inner, node: &NodeId, number: u64) -> bool {
        let mut state = inner.state();
        let own = state.workers.get(node).is_some_and(|worker| worker.session == number);
        if own {
            let _worker = state.workers.remove(node);
        }
        own
    }
}

/// One worker's session with this manager, which leads: replaces the one before.
async fn session(
    inner: Arc<Inner>,
    caller: Caller,
    mut sender: ByteSender,
    mut receiver: ByteReceiver,
) -> Result<(), StreamError> {
    let Some(kept) = Kept::new(&inner, &LeaderAt::Here, &caller) else {
        return refuse(sender, Class::NotLeader, NO_LEADER.to_owned()).await;
    };
    let Kept { inner, node, number, outgoing, reign } = kept;
    let read = async {
        within(HEADER_LIMIT, sender.send(&StreamReply::Ready)).await?;
        let read = async {
            while let Some(message) = receiver.receive_known::<FromWorker>().await? {
                let (node, address) = (node.clone(), caller.address());
                let via = caller.via.clone();
                let input = PeerInput::FromWorker { node, address, via, message };
                if inner.inputs.send(input).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        read.or(outgoing.drain(sender)).await
    };
    let deposed = async {
        // Closed, and nothing else: nobody sends on it.
        let _closed = reign.recv().await;
        Ok(())
    };
    let outcome = read.or(deposed).await;
    if Kept::end(&inner, &node, number) {
        // An error means that the node's loop has ended.
        let _outcome = inner.inputs.send(PeerInput::WorkerGone { node }).await;
    }
    outcome
}

/// One worker's session with the leader, which this manager passes on.
async fn passed_on(
    inner: Arc<Inner>,
    caller: Caller,
    leader: String,
    mut sender: ByteSender,
    receiver: ByteReceiver,
) -> Result<(), StreamError> {
    let (node, address) = (caller.node.clone(), caller.address.clone());
    let (to, from) = match relay::session(&inner, &leader, node, address).await {
        Ok(opened) => opened,
        Err(error) => {
            let text = format!("the leader is not reached: {error}");
            return refuse(sender, Class::Unavailable, text).await;
        }
    };
    let Some(kept) = Kept::new(&inner, &LeaderAt::There(leader), &caller) else {
        return refuse(sender, Class::NotLeader, NO_LEADER.to_owned()).await;
    };
    let Kept { inner, node, number, outgoing, reign } = kept;
    let passed = async {
        within(HEADER_LIMIT, sender.send(&StreamReply::Ready)).await?;
        // The leader was told an address: from another one the node begins anew.
        let stays = || caller.address() == caller.address;
        relay::while_so((sender, receiver), (to, from), stays).await
    };
    let deposed = async {
        let _closed = reign.recv().await;
        Ok(())
    };
    let outcome = passed.or(deposed).await;
    // Nothing is ever put in: what goes to the worker comes from the leader.
    drop(outgoing);
    let _last = Kept::end(&inner, &node, number);
    outcome
}
