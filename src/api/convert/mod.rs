//! Between Docker's JSON and our own types.

pub mod cluster;
mod container;
mod job;
mod mount;
pub mod node;
pub(crate) mod older;
mod security;
pub mod service;
pub mod show;
pub mod task;
mod update;

use super::{dto, error::invalid};
use crate::{
    cluster::Refusal,
    types::{Date, Platform, Version},
};
use std::time::Duration;

pub(crate) fn version(version: Version) -> dto::ObjectVersion {
    dto::ObjectVersion { index: version.to_api() }
}

/// Docker shows a date that was never set as Go's zero time.
pub(crate) fn date(date: Date) -> String {
    if date == Date::EPOCH { "0001-01-01T00:00:00Z".to_owned() } else { date.to_string() }
}

pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Reads nanoseconds; `what` names the option in the refusal of a negative one.
pub(crate) fn duration(nanos: i64, what: &str) -> Result<Duration, Refusal> {
    let nanos = u64::try_from(nanos).map_err(|_| invalid(format!("{what} cannot be negative")))?;
    Ok(Duration::from_nanos(nanos))
}

/// The processor in one word that [`Platform::normalized`] reads back without a variant: Docker's
/// client passes processor and operating system on, forgets the variant, and blanks a bare `arm`.
pub(crate) fn joined_architecture(platform: &Platform) -> String {
    let normal = Platform::normalized(&platform.os, &platform.architecture, &platform.variant);
    match normal.architecture.as_str() {
        "arm" => format!("arm{}", normal.variant),
        _ => normal.architecture,
    }
}
