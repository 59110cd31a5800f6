//! Getting the next certificate, also where the present one opens no session any more.

use super::{
    HEADER_LIMIT,
    endpoint::{Endpoint, Uplink, open},
    serve::manager_at,
    stream::{StreamError, within},
    tls::{Close, Ready, explain},
    uplink::{addresses, connect, resolve},
};
use crate::{
    types::Trust,
    wire::{StreamReply, StreamRequest},
};
use futures_lite::FutureExt as _;
use std::{net::SocketAddr, time::Duration};

/// How long one manager that was connected to for this alone may take: a signature, and the way to
/// the leader. One that knows no leader holds a request back for longer, and another may know it.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(5);

/// How often it is looked, meanwhile, whether there is a session, or this node leads itself.
const LOOK: Duration = Duration::from_millis(100);

/// What a manager answers to a node that asks for its next certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The cluster's roots; none from a manager of an earlier version.
    pub trust: Option<Trust>,
}

/// Where to ask.
enum Way<'a> {
    /// The manager of the present session, or this node itself.
    Session(&'a Endpoint, Duration),
    /// A manager that was connected to for this alone.
    Connection(&'a quinn::Connection),
}

impl Way<'_> {
    async fn ask(&self, request: StreamRequest) -> Result<StreamReply, StreamError> {
        let connection = match self {
            Self::Session(endpoint, limit) => return endpoint.ask_manager(request, *limit).await,
            Self::Connection(connection) => connection,
        };
        let (mut sender, mut receiver) = open(connection).await?;
        within(HEADER_LIMIT, sender.send(&request)).await?;
        match receiver.receive::<StreamReply>().await? {
            Some(StreamReply::Refused(refusal)) => Err(refusal.into()),
            Some(reply) => Ok(reply),
            None => Err(StreamError::Unexpected),
        }
    }

    /// Asks for both. The certificate comes first: a rotation of the root that begins in between
    /// shows in the roots then, and what was signed before it still stands under them.
    async fn renew(&self, csr: Vec<u8>) -> Result<Renewed, StreamError> {
        let StreamReply::Certificate(certificate) = self.ask(StreamRequest::Renew { csr }).await?
        else {
            return Err(StreamError::Unexpected);
        };
        let trust = match self.ask(StreamRequest::Trust).await {
            Ok(StreamReply::Trust(trust)) => Some(trust),
            Err(StreamError::Refused(_)) => None,
            Ok(_) => return Err(StreamError::Unexpected),
            Err(error) => return Err(error),
        };
        Ok(Renewed { certificate, trust })
    }
}

impl Endpoint {
    /// Asks for the next certificate: the manager of the present session, or, without one, each
    /// that is known in turn. A certificate that ran out still opens a connection for this.
    ///
    /// # Errors
    ///
    /// No manager is reached; or the last one that was refuses, or does not answer within `limit`.
    pub async fn renew(&self, csr: Vec<u8>, limit: Duration) -> Result<Renewed, StreamError> {
        match Way::Session(self, limit).renew(csr.clone()).await {
            Err(StreamError::NotConnected) => {
                self.renew_outside(csr, limit.min(ATTEMPT_LIMIT)).or(self.connected()).await
            }
            outcome => outcome,
        }
    }

    /// Gives up once there is a session, or this node leads itself: asking there is better.
    async fn connected<T>(&self) -> Result<T, StreamError> {
        while matches!(self.inner.state().uplink, Uplink::Down) {
            smol::Timer::after(LOOK).await;
        }
        Err(StreamError::NotConnected)
    }

    async fn renew_outside(&self, csr: Vec<u8>, limit: Duration) -> Result<Renewed, StreamError> {
        let ready = self.inner.state().ready.clone().ok_or(StreamError::NotConnected)?;
        let mut last = StreamError::NotConnected;
        for address in addresses(&self.inner) {
            let targets = match resolve(&self.inner, &address).await {
                Ok(targets) => targets,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            for target in targets {
                match self.renew_at(&ready, target, csr.clone(), limit).await {
                    Ok(renewed) => return Ok(renewed),
                    // What one manager says for good outweighs that another is not reached.
                    Err(error) if !is_final(&last) => last = error,
                    Err(_) => {}
                }
            }
        }
        Err(last)
    }

    async fn renew_at(
        &self,
        ready: &Ready,
        target: SocketAddr,
        csr: Vec<u8>,
        limit: Duration,
    ) -> Result<Renewed, StreamError> {
        let connection = connect(&self.inner, target, &ready.client).await?;
        let asked = async {
            if manager_at(&self.inner, ready, &connection).is_none() {
                let text = "the peer is no manager of this cluster";
                return Err(StreamError::Broken(text.to_owned()));
            }
            Way::Connection(&connection).renew(csr).await
        };
        let outcome = within(limit, asked).await;
        let cause = connection.close_reason();
        Close::Done.apply(&connection);
        match (outcome, cause) {
            (Err(StreamError::Refused(refusal)), _) => Err(refusal.into()),
            (Err(_), Some(cause)) => Err(StreamError::Broken(explain(&cause))),
            (outcome, _) => outcome,
        }
    }
}

/// Tells whether a manager refused, rather than could not answer.
fn is_final(error: &StreamError) -> bool {
    use crate::cluster::Class;
    matches!(error, StreamError::Refused(refusal) if refusal.class == Class::Unauthorized)
}
