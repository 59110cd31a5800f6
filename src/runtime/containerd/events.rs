//! The stream of containerd's events.
//!
//! Knows how to tell that a subscription is live; must not know what an exit means to a task.

use super::link::{CALL_LIMIT, CallError, Link, date};
use crate::{types::Date, util::deadline::within};
use containerd_client::{
    events::{NamespaceUpdate, TaskExit},
    services::v1::{PublishRequest, SubscribeRequest, events_client::EventsClient},
};
use prost::Message;
use std::time::Duration;

/// The topic of the events that we publish ourselves, to see the subscription carry one.
const PING: &str = "/midge/ping";

/// The pause between two of them: containerd sends no headers before the first event, so a
/// subscription is only seen to be live by what it delivers.
const PING_EVERY: Duration = Duration::from_millis(20);

/// How long a subscription may take to deliver its first event.
const LIVE_LIMIT: Duration = Duration::from_secs(10);

/// A container's first process ended.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct Exit {
    pub(in crate::runtime) container: String,
    pub(in crate::runtime) code: i32,
    pub(in crate::runtime) date: Option<Date>,
}

/// A live subscription.
#[derive(Debug)]
pub(in crate::runtime) struct Subscription {
    stream: tonic::Streaming<containerd_client::types::Envelope>,
}

impl Subscription {
    /// Subscribes; every exit after this returns is delivered.
    pub(in crate::runtime) async fn open(link: &Link) -> Result<Self, CallError> {
        let namespace = link.namespace();
        let filters = vec![
            format!("namespace=={namespace:?},topic==\"/tasks/exit\""),
            format!("namespace=={namespace:?},topic=={PING:?}"),
        ];
        let request = link.request(SubscribeRequest { filters });
        let channel = link.channel().await.map_err(CallError::Connect)?;
        let subscribe = link.call("events.subscribe", LIVE_LIMIT, |channel| async move {
            EventsClient::with_origin(channel, Link::origin()).subscribe(request).await
        });
        drop(channel);
        let ping = async {
            loop {
                publish_ping(link).await?;
                smol::Timer::after(PING_EVERY).await;
            }
        };
        let stream = futures_lite::future::or(subscribe, ping).await?;
        Ok(Self { stream })
    }

    /// Waits for the next exit; none when the stream ends.
    pub(in crate::runtime) async fn next(&mut self) -> Option<Exit> {
        loop {
            let envelope = self.stream.message().await.ok()??;
            let Some(event) = envelope.event.filter(|_| envelope.topic != PING) else { continue };
            let Ok(exit) = TaskExit::decode(event.value.as_slice()) else { continue };
            if exit.id == exit.container_id {
                return Some(Exit {
                    container: exit.container_id,
                    code: exit.exit_status.cast_signed(),
                    date: date(exit.exited_at),
                });
            }
        }
    }
}

async fn publish_ping(link: &Link) -> Result<(), CallError> {
    let event = prost_types::Any {
        type_url: "containerd.events.NamespaceUpdate".to_owned(),
        value: NamespaceUpdate::default().encode_to_vec(),
    };
    let request = link.request(PublishRequest { topic: PING.to_owned(), event: Some(event) });
    let publish = link.call("events.publish", CALL_LIMIT, |channel| async move {
        EventsClient::with_origin(channel, Link::origin()).publish(request).await
    });
    match within(LIVE_LIMIT, publish).await {
        Some(result) => result.map(|_| ()),
        None => Err(CallError::Late { call: "events.publish", limit: LIVE_LIMIT }),
    }
}
