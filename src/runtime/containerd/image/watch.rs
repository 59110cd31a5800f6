//! Tells that images changed, whoever changed them.

use super::{Images, link::origin};
use crate::util::deadline::within;
use containerd_client::services::v1::{SubscribeRequest, events_client::EventsClient};
use std::time::Duration;

/// How long to wait before asking a containerd again that went away.
const AGAIN: Duration = Duration::from_secs(2);

impl Images {
    /// Returns a hint whenever images of our namespace came or went, and whenever containerd came
    /// back, since nobody knows what happened meanwhile. Hints that nobody took yet are one.
    /// Dropping the receiver ends it with the next event, or within the wait for containerd.
    #[must_use]
    pub fn changes(&self) -> async_channel::Receiver<()> {
        // One place: a hint says "look again", and two say no more.
        let (sender, receiver) = async_channel::bounded(1);
        let images = self.clone();
        smol::spawn(async move {
            while !sender.is_closed() {
                if let Err(error) = images.follow(&sender).await {
                    tracing::debug!(%error, "image events ended");
                }
                within(AGAIN, sender.closed()).await;
                let _full = sender.try_send(());
            }
        })
        .detach();
        receiver
    }

    async fn follow(&self, sender: &async_channel::Sender<()>) -> Result<(), FollowError> {
        let channel = self.link.channel().await?;
        let mut events = EventsClient::with_origin(channel, origin());
        let namespace = self.link.namespace();
        let filter = format!("topic~=\"^/images/\",namespace==\"{namespace}\"");
        let message = SubscribeRequest { filters: vec![filter] };
        // containerd sends nothing at all, not even the head of its answer, before the first
        // event: this waits as long as nothing changes, and ends with the connection.
        let follow = async {
            let mut stream = events.subscribe(self.link.request(message)).await?.into_inner();
            let _full = sender.try_send(());
            while stream.message().await?.is_some() {
                let _full = sender.try_send(());
            }
            Ok(())
        };
        let closed = async {
            sender.closed().await;
            Ok(())
        };
        futures_lite::future::or(follow, closed).await
    }
}

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Runtime(#[from] crate::runtime::image::RuntimeError),
    #[error("{}", .0.message())]
    Status(Box<tonic::Status>),
}

impl From<tonic::Status> for FollowError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}
