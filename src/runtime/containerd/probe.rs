//! Asks a containerd for its version, for whoever has no use for it otherwise.

use super::client::{Channel, ORIGIN};
use crate::util::{deadline::within, error::chain};
use containerd_client::services::v1::version_client::VersionClient;
use std::time::Duration;

/// Returns the version of the containerd that listens at `socket`.
///
/// # Errors
///
/// Why nothing there says one within `limit`, as a sentence.
pub async fn version(socket: &str, limit: Duration) -> Result<String, String> {
    let ask = async {
        let channel = Channel::connect(socket).await.map_err(|error| chain(&error))?;
        let answer =
            VersionClient::with_origin(channel, http::Uri::from_static(ORIGIN)).version(()).await;
        answer.map(|answer| answer.into_inner().version).map_err(|status| {
            let text = status.message();
            if text.is_empty() { status.code().to_string() } else { text.to_owned() }
        })
    };
    within(limit, ask).await.unwrap_or_else(|| Err(format!("no answer within {limit:?}")))
}
