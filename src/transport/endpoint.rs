//! The endpoint: its identity, its peers, and what the rest of the daemon calls.

use super::{
    judge::Judge,
    names::Names,
    on_smol::OnSmol,
    outbox::Outbox,
    peers::{Met, Peers},
    serve::{self, Handler, IncomingStream},
    socket,
    stream::{ByteReceiver, ByteSender, StreamError, from_quic, local_pair, within},
    tls::{Close, Credentials, Ready, TlsError},
    uplink,
};
use crate::{
    cluster::{Request, Response},
    pki::{Identity, Shown, Standing, TrustedClock},
    types::{FromManager, FromWorker, LeaderAt, NodeId, PeerInput, Role, Roster},
    util::dns::Resolver,
    wire::{self, RaftAnswer, RaftCall, StreamReply, StreamRequest},
};
use async_channel::{Receiver, Sender};
use quinn::EndpointConfig;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// Inputs that wait for the node's loop. Readers of sessions wait when it is full, and so does
/// QUIC's flow control behind them.
const INPUTS_MAX: usize = 1_024;

/// How an endpoint is made.
#[derive(Clone)]
pub struct Config {
    /// Where it listens; port 0 picks one.
    pub listen: SocketAddr,
    /// By which certificates are judged.
    pub clock: TrustedClock,
    /// Turns managers' names into addresses.
    pub resolver: Resolver,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// The endpoint cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refused.
    #[error("cannot listen on UDP {address}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl BindError {
    /// Tells whether the machine does not have the address, which it may get later. Any address is
    /// there always.
    #[must_use]
    pub fn lacks_address(&self) -> bool {
        matches!(self, Self::Socket { address, source }
            if source.kind() == io::ErrorKind::AddrNotAvailable && !address.ip().is_unspecified())
    }
}

/// Where this node, as a worker, finds its manager.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Managers {
    /// Nowhere: it is in no cluster.
    #[default]
    None,
    /// In this same process, which is a manager, while it leads; else where the leader is.
    Local {
        /// The address that the node is shown at, without a port.
        address: String,
        /// Where others are, `host:port`, tried where no leader is known or reached: a manager
        /// that the group let go of while it was away hears of no leader any more.
        others: Vec<String>,
    },
    /// At one of these, `host:port`, tried in order.
    Remote(Vec<String>),
}

/// One daemon's end of every connection. Cheap to clone; all clones are one endpoint.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) inner: Arc<Inner>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

pub(super) struct Inner {
    pub(super) quic: quinn::Endpoint,
    pub(super) clock: TrustedClock,
    pub(super) names: Names,
    /// How to connect before there is an identity.
    pub(super) stranger: quinn::ClientConfig,
    state: Mutex<State>,
    pub(super) inputs: Sender<PeerInput>,
    incoming: Receiver<PeerInput>,
    /// Holds a word where the uplink should look at the state anew.
    pub(super) wake: (Sender<()>, Receiver<()>),
    /// Holds a word where a manager wants this node's certificate renewed.
    pub(super) outdated: (Sender<()>, Receiver<()>),
    pub(super) judge: Arc<Judge>,
}

/// What changes while the endpoint runs. Locked for moments only, never across a wait.
#[derive(Default)]
pub(super) struct State {
    pub(super) ready: Option<Arc<Ready>>,
    pub(super) handler: Option<Handler>,
    pub(super) workers: BTreeMap<NodeId, Worker>,
    pub(super) denied: BTreeSet<NodeId>,
    pub(super) managers: Managers,
    /// Where else managers may be, as nodes said that are none any more.
    pub(super) hearsay: Vec<String>,
    /// The managers that could not be reached since the last session, and why.
    pub(super) unreached: BTreeMap<String, String>,
    /// Whether others may know this node as a manager of before, and ask it for the present ones.
    pub(super) was_manager: bool,
    /// Where the leader is, on a manager.
    pub(super) leader: LeaderAt,
    /// Closed when that changes: sessions end with it.
    pub(super) reign: Reign,
    /// Connections to other managers that this one made.
    pub(super) peers: Peers,
    pub(super) met: Met,
    /// Counts the changes that end the present uplink.
    pub(super) plan: u64,
    pub(super) uplink: Uplink,
    pub(super) next_session: u64,
    /// Connections of those that come with one question.
    pub(super) guests: usize,
    pub(super) connections: BTreeMap<usize, (NodeId, quinn::Connection)>,
    pub(super) closed: bool,
}

/// Lasts as long as one leader does.
pub(super) struct Reign {
    _end: Sender<()>,
    pub(super) ended: Receiver<()>,
}

impl Default for Reign {
    fn default() -> Self {
        let (end, ended) = async_channel::bounded(1);
        Self { _end: end, ended }
    }
}

/// A worker's session with this manager.
pub(super) struct Worker {
    pub(super) session: u64,
    /// To the worker, or to the manager that passes its session on.
    pub(super) connection: quinn::Connection,
    /// Whether another manager passes it on.
    pub(super) relayed: bool,
    pub(super) outbox: Outbox,
}

/// The session with this worker's manager.
#[derive(Default)]
pub(super) enum Uplink {
    #[default]
    Down,
    Local,
    Up {
        outbox: Outbox,
        connection: quinn::Connection,
    },
}

impl State {
    /// Ends connections to other nodes, whoever made them.
    fn end_connections(&mut self, close: Close, which: impl Fn(&quinn::Connection) -> bool) {
        self.peers.end(&which);
        for (_, connection) in self.connections.values().filter(|(_, c)| which(c)) {
            close.apply(connection);
        }
        if let Uplink::Up { connection, .. } = &self.uplink
            && which(connection)
        {
            close.apply(connection);
        }
    }
}

impl Inner {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked under the lock left the maps whole: every change is one insertion.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Puts in what a node says to itself, or drops it where its loop is behind.
    fn put_local(&self, input: PeerInput) {
        drop(self.inputs.try_send(input));
    }

    /// Returns the way to a node, and whether another manager is on it; none where this manager
    /// knows no session of the node.
    pub(super) fn route_to(&self, node: &NodeId) -> Option<(Route, bool)> {
        let state = self.state();
        let own = state.ready.as_ref().map(|ready| ready.identity.clone());
        match own {
            Some(own) if own.node == *node => Some((Route::Own(own), false)),
            _ => {
                let worker = state.workers.get(node)?;
                Some((Route::Peer(worker.connection.clone()), worker.relayed))
            }
        }
    }

    /// A manager takes this node's certificate for nothing but its renewal.
    pub(super) fn renew_first(&self) -> StreamError {
        // Full says that it is known already.
        let _told = self.outdated.0.try_send(());
        let text = "the manager wants this node's certificate renewed first";
        StreamError::Broken(text.to_owned())
    }

    pub(super) fn wake(&self) {
        // Full means that it is awake already.
        let _outcome = self.wake.0.try_send(());
    }
}

impl Endpoint {
    /// Listens, with no identity yet: [`Endpoint::join`] works, everything else waits for
    /// [`Endpoint::set_identity`].
    ///
    /// # Errors
    ///
    /// The address is taken or not this machine's.
    pub fn bind(config: Config) -> Result<Self, BindError> {
        let failed = |source| BindError::Socket { address: config.listen, source };
        let socket = socket::bind(config.listen).map_err(failed)?;
        let runtime = Arc::new(OnSmol);
        let quic = quinn::Endpoint::new(EndpointConfig::default(), None, socket, runtime)
            .map_err(failed)?;
        let stranger = super::tls::stranger(&config.clock)?;
        let (inputs, incoming) = async_channel::bounded(INPUTS_MAX);
        let judge = Arc::new(Judge::new(config.clock.clone()));
        let inner = Arc::new(Inner {
            quic,
            judge,
            outdated: async_channel::bounded(1),
            clock: config.clock,
            names: Names::new(config.resolver),
            stranger,
            state: Mutex::default(),
            inputs,
            incoming,
            wake: async_channel::bounded(1),
        });
        smol::spawn(serve::accept(inner.clone())).detach();
        smol::spawn(uplink::run(inner.clone())).detach();
        Ok(Self { inner })
    }

    /// Returns where it listens.
    ///
    /// # Errors
    ///
    /// The socket is gone.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.quic.local_addr()
    }

    /// Takes over new credentials, or none. Connections that stand are kept: each was checked when
    /// it was made. They end where the node is no member any more, where its certificate had run
    /// out, since the peers hold it for no more than they could then, and where the peer's is of a
    /// root that does not count any more.
    ///
    /// # Errors
    ///
    /// The credentials are unusable; the ones before stay.
    pub fn set_identity(&self, credentials: Option<&Credentials>) -> Result<(), TlsError> {
        let (clock, judge) = (&self.inner.clock, &self.inner.judge);
        let ready = match credentials {
            Some(credentials) => Some(Arc::new(Ready::new(credentials, clock, judge)?)),
            None => None,
        };
        // Nobody knows of a port of the others.
        let was_manager = self.inner.state().was_manager;
        let known = |ready: &&Arc<Ready>| was_manager || ready.identity.role == Role::Manager;
        let server = ready.as_ref().filter(known);
        self.inner.quic.set_server_config(server.map(|ready| ready.server.clone()));
        let mut state = self.inner.state();
        match &ready {
            None => {
                state.plan += 1;
                state.end_connections(Close::Done, |_| true);
            }
            Some(_) if state.ready.as_ref().is_some_and(|old| old.not_after < clock.date()) => {
                state.plan += 1;
                state.end_connections(Close::Renewed, |_| true);
            }
            Some(ready) => {
                // A manager's certificate serves to connect and to be connected to.
                state.end_connections(Close::Renewed, |connection| {
                    let Some(chain) = serve::chain(connection) else { return false };
                    ready.anchors.standing(&[], Shown::Member, &chain, clock.date()).is_err()
                });
            }
        }
        state.ready = ready;
        drop(state);
        self.inner.wake();
        Ok(())
    }

    /// Sets what the replicated state says of who may ask what. Sessions that a node passes on end
    /// with its being a manager. Returns false where a later state has spoken already.
    pub fn set_roster(&self, roster: Roster) -> bool {
        let demoted: BTreeSet<NodeId> = roster.demoted.keys().cloned().collect();
        if !self.inner.judge.set_roster(roster) {
            return false;
        }
        let mut state = self.inner.state();
        let of: BTreeSet<usize> = state
            .connections
            .iter()
            .filter(|(_, (node, _))| demoted.contains(node))
            .map(|(id, _)| *id)
            .collect();
        // What is waiting to be sent goes with them, and that ends the streams.
        state
            .workers
            .retain(|_, worker| !(worker.relayed && of.contains(&worker.connection.stable_id())));
        true
    }

    /// Has this node, where it is a worker, take connections as managers do from the next
    /// [`Endpoint::set_identity`] on, to tell other members where managers are and nothing else. A
    /// node that was off meanwhile may know nobody but managers of before.
    pub fn set_was_manager(&self) {
        self.inner.state().was_manager = true;
    }

    /// Returns the channel that holds a word where a manager wants this node's certificate renewed.
    #[must_use]
    pub fn outdated(&self) -> Receiver<()> {
        self.inner.outdated.1.clone()
    }

    /// Sets what answers the streams that others open to this node.
    pub fn set_handler(&self, handler: Handler) {
        self.inner.state().handler = Some(handler);
    }

    /// Sets where the manager is found. The present session ends only where its kind changes, or
    /// its addresses no longer hold anything.
    pub fn set_managers(&self, managers: Managers) {
        let mut state = self.inner.state();
        let learned = match (&state.managers, &managers) {
            (Managers::Remote(_), Managers::Remote(new)) => !new.is_empty(),
            (Managers::Local { address: old, .. }, Managers::Local { address: new, .. }) => {
                old == new
            }
            _ => false,
        };
        if !learned && state.managers != managers {
            state.plan += 1;
        }
        state.managers = managers;
        drop(state);
        self.inner.wake();
    }

    /// Sets where the leader is. Sessions end: workers begin new ones with whoever leads now.
    pub fn set_leader(&self, leader: LeaderAt) {
        let mut state = self.inner.state();
        if state.leader == leader {
            return;
        }
        state.leader = leader;
        state.reign = Reign::default();
        if matches!(state.managers, Managers::Local { .. }) {
            state.plan += 1;
        }
        drop(state);
        self.inner.wake();
    }

    /// Listens elsewhere from now on; connections that this endpoint made go on from there.
    ///
    /// # Errors
    ///
    /// The address is taken or not this machine's: it listens where it did.
    pub fn rebind(&self, listen: SocketAddr) -> Result<(), BindError> {
        let rebound = socket::bind(listen).and_then(|socket| self.inner.quic.rebind(socket));
        rebound.map_err(|source| BindError::Socket { address: listen, source })
    }

    /// Looks for a manager at once, where there is no session and the next attempt waits.
    pub fn look_again(&self) {
        let mut state = self.inner.state();
        if matches!(state.uplink, Uplink::Down) {
            state.plan += 1;
            drop(state);
            self.inner.wake();
        }
    }

    /// Returns the managers that could not be reached since there was a session, and why.
    #[must_use]
    pub fn unreached(&self) -> BTreeMap<String, String> {
        self.inner.state().unreached.clone()
    }

    /// Returns the channel of what comes in.
    #[must_use]
    pub fn inputs(&self) -> Receiver<PeerInput> {
        self.inner.incoming.clone()
    }

    /// Sends to a worker; dropped where it is not connected or too slow. Never waits.
    pub fn send_to_worker(&self, node: &NodeId, message: FromManager) {
        let state = self.inner.state();
        let own = state.ready.as_ref().is_some_and(|ready| ready.identity.node == *node);
        if own && matches!(state.uplink, Uplink::Local) {
            drop(state);
            self.inner.put_local(PeerInput::FromManager(message));
            return;
        }
        let outbox = state.workers.get(node).map(|worker| worker.outbox.clone());
        drop(state);
        if let Some(outbox) = outbox {
            outbox.put(&message);
        }
    }

    /// Sends to the manager; dropped where there is no session or it is too slow. Never waits.
    pub fn send_to_manager(&self, message: FromWorker) {
        let state = self.inner.state();
        match (&state.uplink, &state.managers, &state.ready) {
            (Uplink::Up { outbox, .. }, _, _) => {
                let outbox = outbox.clone();
                drop(state);
                outbox.put(&message);
            }
            (Uplink::Local, Managers::Local { address, .. }, Some(ready)) => {
                let (node, address) = (ready.identity.node.clone(), address.clone());
                drop(state);
                self.inner.put_local(PeerInput::FromWorker { node, address, via: None, message });
            }
            _ => {}
        }
    }

    /// Ends every connection of a node and refuses new ones for as long as this endpoint lives.
    pub fn disconnect(&self, node: &NodeId) {
        let mut state = self.inner.state();
        let _new = state.denied.insert(node.clone());
        for (_, connection) in state.connections.values().filter(|(peer, _)| peer == node) {
            Close::Removed.apply(connection);
        }
        // Its session by way of another manager, which may not know yet, ends here.
        if state.workers.get(node).is_some_and(|worker| worker.relayed) {
            let _ended = state.workers.remove(node);
        }
    }

    /// Ends the session with the manager and looks for another.
    pub fn reconnect(&self) {
        self.inner.state().plan += 1;
        self.inner.wake();
    }

    /// Opens a stream to a node, by way of the managers where it is not connected to this one, and
    /// waits until it is granted.
    ///
    /// # Errors
    ///
    /// The node is not connected, refuses, or does not answer within `limit`.
    pub async fn open_stream(
        &self,
        node: &NodeId,
        request: StreamRequest,
        limit: Duration,
    ) -> Result<(ByteSender, ByteReceiver), StreamError> {
        let asked = async {
            match self.inner.route_to(node) {
                Some((route, true)) => {
                    let (node, request) = (node.clone(), Box::new(request));
                    self.ask(route, StreamRequest::Via { node, request }).await
                }
                Some((route, false)) => self.ask(route, request).await,
                None => {
                    let leader = self.leader_connection().await?;
                    let (node, request) = (node.clone(), Box::new(request));
                    self.ask(Route::Peer(leader), StreamRequest::Via { node, request }).await
                }
            }
        };
        let (sender, receiver, reply) = within(limit, asked).await?;
        match reply {
            StreamReply::Ready => Ok((sender, receiver)),
            _ => Err(StreamError::Unexpected),
        }
    }

    /// Asks the manager of the present session something that one message answers.
    ///
    /// # Errors
    ///
    /// There is no session, or the manager refuses or does not answer within `limit`.
    pub async fn ask_manager(
        &self,
        request: StreamRequest,
        limit: Duration,
    ) -> Result<StreamReply, StreamError> {
        let route = {
            let state = self.inner.state();
            match (&state.uplink, &state.ready) {
                (Uplink::Up { connection, .. }, _) => Route::Peer(connection.clone()),
                (Uplink::Local, Some(ready)) if matches!(request, StreamRequest::Trust) => {
                    let known = self.inner.judge.trust();
                    return Ok(StreamReply::Trust(known.unwrap_or_else(|| ready.trust.clone())));
                }
                (Uplink::Local, Some(ready)) => Route::Own(ready.identity.clone()),
                _ => return Err(StreamError::NotConnected),
            }
        };
        let (sender, _receiver, reply) = within(limit, self.ask(route, request)).await?;
        // The answer is here already, so the peer has nothing to lose by a reset.
        drop(sender);
        Ok(reply)
    }

    /// Asks the leader, where that is another node, what a manager was asked.
    ///
    /// # Errors
    ///
    /// No other node leads, or it refuses or does not answer within `limit`.
    pub async fn relay(&self, request: Request, limit: Duration) -> Result<Response, StreamError> {
        let asked = async {
            let leader = self.leader_connection().await?;
            let request = StreamRequest::Relay(Box::new(request));
            let (sender, _receiver, reply) = self.ask(Route::Peer(leader), request).await?;
            drop(sender);
            match reply {
                StreamReply::Response(response) => Ok(*response),
                _ => Err(StreamError::Unexpected),
            }
        };
        within(limit, asked).await
    }

    /// Calls the member of the consensus group with the key `target`. Dropped early, the connection
    /// is made all the same.
    ///
    /// # Errors
    ///
    /// It is not reached, is another member by now, or cannot answer.
    pub async fn call_member(
        &self,
        target: u64,
        address: &str,
        bytes: Vec<u8>,
    ) -> Result<Vec<u8>, StreamError> {
        let connection = super::peers::connection(&self.inner, address).await?;
        let mut call = wire::encode(&StreamRequest::Raft)?;
        call.extend(wire::encode(&RaftCall { target, bytes })?);
        let (mut sender, mut receiver) = open(&connection).await?;
        // The end goes with the rest, in one packet where it is small.
        let sent = async {
            sender.write_all(&call).await?;
            sender.finish().await
        };
        let sent = sent.await;
        // Whoever refuses reads no further: the write fails then, and the answer says why.
        let reply = receiver.receive::<StreamReply>().await;
        if let Ok(Some(StreamReply::Refused(refusal))) = reply {
            return Err(refusal.into());
        }
        sent?;
        let Some(StreamReply::Ready) = reply? else { return Err(StreamError::Unexpected) };
        let answer = receiver.receive::<RaftAnswer>().await?;
        // Dropped before its end, a stream costs a packet that says so.
        let _end = receiver.read().await;
        let RaftAnswer(answer) = answer.ok_or(StreamError::Unexpected)?;
        answer.map_err(StreamError::Broken)
    }

    async fn leader_connection(&self) -> Result<quinn::Connection, StreamError> {
        let leader = self.inner.state().leader.clone();
        let LeaderAt::There(address) = leader else { return Err(StreamError::NotConnected) };
        super::peers::connection(&self.inner, &address).await
    }

    async fn ask(
        &self,
        route: Route,
        request: StreamRequest,
    ) -> Result<(ByteSender, ByteReceiver, StreamReply), StreamError> {
        let (sender, mut receiver) = match route {
            Route::Peer(connection) => {
                let (mut sender, receiver) = open(&connection).await?;
                sender.send(&request).await?;
                (sender, receiver)
            }
            Route::Own(identity) => {
                let [here, there] = local_pair();
                let handler = self.inner.state().handler.clone();
                let handler = handler.ok_or(StreamError::NotConnected)?;
                let (sender, receiver) = there;
                let peer = Some(identity);
                let stream = IncomingStream {
                    peer,
                    standing: Standing::default(),
                    request,
                    sender,
                    receiver,
                };
                smol::spawn(handler(stream)).detach();
                here
            }
        };
        match receiver.receive::<StreamReply>().await? {
            Some(StreamReply::Refused(refusal)) => Err(refusal.into()),
            Some(StreamReply::RenewFirst) => Err(self.inner.renew_first()),
            Some(reply) => Ok((sender, receiver, reply)),
            None => Err(StreamError::Unexpected),
        }
    }

    /// Ends every connection and every task of this endpoint, and waits until the peers were told.
    pub async fn close(&self) {
        {
            let mut state = self.inner.state();
            state.closed = true;
            state.plan += 1;
        }
        self.inner.wake();
        self.inner.quic.close(0u32.into(), b"");
        let told = async {
            self.inner.quic.wait_idle().await;
            Ok(())
        };
        // A peer that is gone already tells nobody; a second is what a shutdown can spare.
        let _outcome = within(Duration::from_secs(1), told).await;
        {
            // Each connection holds the port.
            let mut state = self.inner.state();
            state.workers.clear();
            state.connections.clear();
            state.peers = Peers::default();
            state.handler = None;
        }
        // Whoever still holds the endpoint holds another port from now on, twice over since QUIC
        // keeps the last one for packets that are late: the next member listens where this one did.
        for _ in 0..2 {
            let aside = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0));
            if let Err(error) = aside.and_then(|socket| self.inner.quic.rebind(socket)) {
                tracing::debug!(%error, "the port comes free only with the last of its users");
            }
        }
    }
}

pub(super) enum Route {
    Own(Identity),
    Peer(quinn::Connection),
}

/// Opens a stream; waits where the peer's limit of streams is reached.
pub(super) async fn open(
    connection: &quinn::Connection,
) -> Result<(ByteSender, ByteReceiver), StreamError> {
    let pair = connection.open_bi().await;
    pair.map(from_quic).map_err(|error| StreamError::Broken(super::tls::explain(&error)))
}
