//! How containers are: what checks them, and what came of it.

use super::{Date, HealthCheck, HealthTest};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// The time from one probe to the next, and how long one may take, as Docker's.
const INTERVAL: Duration = Duration::from_secs(30);

/// The time from one probe to the next within the start period, as Docker's.
const START_INTERVAL: Duration = Duration::from_secs(5);

/// How many failures in a row make a container unhealthy, as Docker's.
const RETRIES: u32 = 3;

/// What command lines are run with where the image names nothing else.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// What an image says of the health of its containers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageHealth {
    /// Its HEALTHCHECK.
    pub check: Option<HealthCheck>,
    /// The program with its arguments that runs command lines; empty is `/bin/sh -c`.
    pub shell: Vec<String>,
}

/// How the health of one container is found out: everything decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The program with its arguments.
    pub command: Vec<String>,
    /// The time from the end of one to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// How long after the start failures do not count, until the first success.
    pub start_period: Duration,
    /// The interval within the start period.
    pub start_interval: Duration,
    /// So many failures in a row make the container unhealthy.
    pub retries: u32,
}

impl Probe {
    /// Returns how a container is probed: as its spec says, else as its image does; none where
    /// neither says anything or the spec turns it off.
    #[must_use]
    pub fn of(spec: Option<&HealthCheck>, image: &ImageHealth) -> Option<Self> {
        let none = HealthCheck::default();
        let spec = spec.unwrap_or(&none);
        let image_check = image.check.as_ref().unwrap_or(&none);
        let test = match &spec.test {
            HealthTest::Inherit => &image_check.test,
            own => own,
        };
        let command = match test {
            HealthTest::Inherit | HealthTest::Disabled => return None,
            HealthTest::Command(command) => command.clone(),
            HealthTest::Shell(line) => {
                let shell = if image.shell.is_empty() {
                    SHELL.map(str::to_owned).to_vec()
                } else {
                    image.shell.clone()
                };
                shell.into_iter().chain([line.clone()]).collect()
            }
        };
        let first = |a: Duration, b: Duration, default: Duration| {
            [a, b].into_iter().find(|duration| !duration.is_zero()).unwrap_or(default)
        };
        let retries = [spec.retries, image_check.retries].into_iter().find(|n| *n > 0);
        Some(Self {
            command,
            interval: first(spec.interval, image_check.interval, INTERVAL),
            timeout: first(spec.timeout, image_check.timeout, INTERVAL),
            start_period: first(spec.start_period, image_check.start_period, Duration::ZERO),
            start_interval: first(spec.start_interval, image_check.start_interval, START_INTERVAL),
            retries: retries.unwrap_or(RETRIES),
        })
    }
}

/// How a container that is probed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum HealthState {
    /// No probe has succeeded yet.
    #[default]
    Starting,
    /// Well.
    Healthy,
    /// Too many probes failed in a row.
    Unhealthy,
}

impl HealthState {
    /// Returns Docker's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One probe that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeLog {
    /// When it began.
    pub start: Date,
    /// When it ended.
    pub end: Date,
    /// Its exit status; -1 where it did not end in time or could not be started, as Docker's.
    pub code: i32,
    /// What it printed, or why there is nothing.
    pub output: String,
}

/// The health of a container, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// How it is.
    pub state: HealthState,
    /// How many probes failed in a row.
    pub streak: u32,
    /// The last probes, oldest first.
    pub log: Vec<ProbeLog>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: HealthTest) -> HealthCheck {
        HealthCheck { test, ..HealthCheck::default() }
    }

    #[test]
    fn the_spec_wins_over_the_image_field_by_field() {
        let seconds = Duration::from_secs;
        let image = ImageHealth {
            check: Some(HealthCheck {
                interval: seconds(7),
                retries: 9,
                ..check(HealthTest::Shell("curl -f localhost".into()))
            }),
            shell: vec!["/bin/ash".into(), "-ec".into()],
        };
        let inherited = Probe::of(None, &image).unwrap();
        assert_eq!(inherited.command, ["/bin/ash", "-ec", "curl -f localhost"]);
        assert_eq!((inherited.interval, inherited.timeout), (seconds(7), seconds(30)));
        assert_eq!((inherited.start_period, inherited.start_interval), (seconds(0), seconds(5)));
        assert_eq!(inherited.retries, 9);
        let spec = HealthCheck { timeout: seconds(1), retries: 2, ..HealthCheck::default() };
        let mixed = Probe::of(Some(&spec), &image).unwrap();
        assert_eq!(mixed.command, inherited.command);
        assert_eq!((mixed.interval, mixed.timeout, mixed.retries), (seconds(7), seconds(1), 2));
        let own = check(HealthTest::Command(vec!["true".into()]));
        assert_eq!(Probe::of(Some(&own), &image).unwrap().command, ["true"]);
    }

    #[test]
    fn without_a_test_nothing_is_probed() {
        let bare = ImageHealth::default();
        assert_eq!(Probe::of(None, &bare), None);
        assert_eq!(Probe::of(Some(&HealthCheck::default()), &bare), None);
        let image = ImageHealth { check: Some(check(HealthTest::Shell("x".into()))), ..bare };
        assert_eq!(Probe::of(Some(&check(HealthTest::Disabled)), &image), None);
        let shell = Probe::of(None, &image).unwrap().command;
        assert_eq!(shell, ["/bin/sh", "-c", "x"]);
    }
}
