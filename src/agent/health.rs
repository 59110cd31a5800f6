//! The health of one container: when it is probed, and what follows from what came of that.
//!
//! Knows one container and Docker's rules; nothing of tasks, and nothing of other probes. Nothing
//! here is ever written down: an agent that starts anew finds a container out anew, and is lenient
//! with one that was well before.

use super::event::{Failure, ProbeResult};
use crate::types::{Date, Health, HealthState, Moment, Probe, ProbeLog, TaskId};
use std::time::Duration;

/// How many probes are remembered, as Docker does.
const LOG_MAX: usize = 5;

/// How much of what a probe printed is remembered, as Docker does: with [`LOG_MAX`] 20 KB for a
/// container, 2 MB for a hundred of them.
const OUTPUT_MAX: usize = 4_096;

/// How much of it fits an error that a table shows.
const LINE_MAX: usize = 200;

/// How much longer than its timeout a probe may take before its answer counts as lost: killing it
/// and reaping it on a busy board are seconds.
const ANSWER_SLACK: Duration = Duration::from_secs(60);

/// The exit status of what has none, as Docker's.
const NO_CODE: i32 = -1;

/// What becomes of the next probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing is probed: the container does not run, or is not checked.
    Off,
    /// It is due then.
    Due(Moment),
    /// It is under way; its answer counts as lost at `limit`.
    UnderWay { number: u64, since: Moment, start: Date, limit: Moment },
}

/// What follows from a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it was not the one waited for, or says nothing of the container.
    Nothing,
    /// The container is well.
    Passed,
    /// It failed, which does not matter yet.
    Failed(String),
    /// The container is unhealthy.
    Unhealthy(String),
}

/// What is known of a container's health.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    probe: Option<Probe>,
    turn: Turn,
    /// Failures of probes begun before this do not count while none has succeeded.
    lenient_until: Moment,
    /// Whether the next failure does not count, whatever it is.
    lenient_once: bool,
    health: Health,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            probe: None,
            turn: Turn::Off,
            lenient_until: Moment::ZERO,
            lenient_once: false,
            health: Health::default(),
        }
    }

    /// Takes note of how the container is to be probed.
    pub(super) fn learn(&mut self, probe: Option<Probe>) {
        self.probe = probe;
    }

    /// Tells whether the container is probed at all.
    pub(super) fn is_checked(&self) -> bool {
        self.probe.is_some()
    }

    /// Returns what people see; none where nothing is probed.
    pub(super) fn health(&self) -> Option<&Health> {
        (self.turn != Turn::Off).then_some(&self.health)
    }

    /// The container is seen running; what was begun goes on.
    pub(super) fn begin(&mut self, now: Moment) {
        let Some(probe) = self.probe.as_ref().filter(|_| self.turn == Turn::Off) else { return };
        self.lenient_until = now + probe.start_period;
        self.health = Health::default();
        self.turn = Turn::Due(now + self.interval(now));
    }

    /// The container is seen running that was well before this agent was. What one daemon missed
    /// must not count, and a node full of them is not to be probed all at once: `task` tells how
    /// far into its interval each begins.
    pub(super) fn adopt(&mut self, task: &TaskId, now: Moment) {
        let Some(probe) = self.probe.as_ref().filter(|_| self.turn == Turn::Off) else { return };
        self.lenient_until = Moment::ZERO;
        self.lenient_once = true;
        self.health = Health { state: HealthState::Healthy, ..Health::default() };
        let sum = task
            .as_str()
            .bytes()
            .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        self.turn = Turn::Due(now + probe.interval / 256 * (sum % 256 + 1));
    }

    /// The container does not run any more.
    pub(super) fn end(&mut self) {
        self.turn = Turn::Off;
    }

    /// Returns when a probe is to begin.
    pub(super) fn due(&self) -> Option<Moment> {
        match self.turn {
            Turn::Due(due) => Some(due),
            Turn::Off | Turn::UnderWay { .. } => None,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.turn, Turn::UnderWay { .. })
    }

    /// Returns when the answer to a probe counts as lost.
    pub(super) fn limit(&self) -> Option<Moment> {
        match self.turn {
            Turn::UnderWay { limit, .. } => Some(limit),
            Turn::Off | Turn::Due(_) => None,
        }
    }

    /// Begins a probe under a number that its answer comes back with; returns what to run and how
    /// long it may take.
    pub(super) fn start(
        &mut self,
        number: u64,
        now: Moment,
        date: Date,
    ) -> Option<(Vec<String>, Duration)> {
        let probe = self.probe.as_ref()?;
        let limit = now + probe.timeout + ANSWER_SLACK;
        self.turn = Turn::UnderWay { number, since: now, start: date, limit };
        Some((probe.command.clone(), probe.timeout))
    }

    /// Gives up on an answer that does not come.
    pub(super) fn expire(&mut self, now: Moment) {
        if self.limit().is_some_and(|limit| limit <= now) {
            self.turn = Turn::Due(now + self.interval(now));
        }
    }

    /// A probe ended.
    pub(super) fn ended(
        &mut self,
        number: u64,
        result: Result<ProbeResult, Failure>,
        now: Moment,
        date: Date,
    ) -> Verdict {
        let (Some(probe), Turn::UnderWay { number: waited, since, start, .. }) =
            (&self.probe, self.turn)
        else {
            return Verdict::Nothing;
        };
        if waited != number {
            return Verdict::Nothing;
        }
        let (code, output) = match result {
            // Whether the container is well was not found out.
            Err(failure) if failure.temporary => {
                self.turn = Turn::Due(now + self.interval(now));
                return Verdict::Nothing;
            }
            Err(failure) => (NO_CODE, failure.message),
            Ok(ProbeResult { code: Some(code), output }) => (code, output),
            Ok(ProbeResult { code: None, output }) => {
                let late = format!("Health check exceeded timeout ({:?})", probe.timeout);
                let output = if output.is_empty() { late } else { format!("{late}: {output}") };
                (NO_CODE, output)
            }
        };
        let retries = probe.retries;
        let verdict = self.judge(code, &output, since, retries);
        self.note(ProbeLog { start, end: date, code, output });
        self.turn = Turn::Due(now + self.interval(now));
        verdict
    }

    fn judge(&mut self, code: i32, output: &str, since: Moment, retries: u32) -> Verdict {
        let lenient_once = std::mem::take(&mut self.lenient_once);
        if code == 0 {
            self.health.state = HealthState::Healthy;
            self.health.streak = 0;
            return Verdict::Passed;
        }
        let text = first_line(output)
            .unwrap_or_else(|| format!("the health check exited with status {code}"));
        let starting = self.health.state == HealthState::Starting;
        if lenient_once || (starting && since < self.lenient_until) {
            return Verdict::Failed(text);
        }
        self.health.streak = self.health.streak.saturating_add(1);
        if self.health.streak < retries {
            return Verdict::Failed(text);
        }
        self.health.state = HealthState::Unhealthy;
        Verdict::Unhealthy(text)
    }

    fn note(&mut self, mut probe: ProbeLog) {
        truncate(&mut probe.output, OUTPUT_MAX);
        if self.health.log.len() == LOG_MAX {
            self.health.log.remove(0);
        }
        self.health.log.push(probe);
    }

    /// Returns the time to the next probe.
    fn interval(&self, now: Moment) -> Duration {
        let Some(probe) = &self.probe else { return Duration::MAX };
        let starting = self.health.state == HealthState::Starting && now < self.lenient_until;
        if starting { probe.start_interval } else { probe.interval }
    }
}

/// Returns the first line that says something, as far as a table shows it.
fn first_line(output: &str) -> Option<String> {
    let mut line = output.lines().map(str::trim).find(|line| !line.is_empty())?.to_owned();
    truncate(&mut line, LINE_MAX);
    Some(line)
}

fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    const SECOND: Duration = Duration::from_secs(1);

    fn probe() -> Probe {
        Probe {
            command: vec!["test".into()],
            interval: 30 * SECOND,
            timeout: 5 * SECOND,
            start_period: Duration::ZERO,
            start_interval: 2 * SECOND,
            retries: 3,
        }
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn begun(probe: Probe) -> Watch {
        let mut watch = Watch::new();
        watch.learn(Some(probe));
        watch.begin(Moment::ZERO);
        watch
    }

    /// Lets probes take a second each and end as `codes` say; renders when each began and what
    /// followed.
    fn play(watch: &mut Watch, codes: &[i32]) -> String {
        let mut text = String::new();
        for (number, code) in (1..).zip(codes) {
            let due = watch.due().expect("a probe is due");
            watch.start(number, due, Date::EPOCH).expect("a command");
            let output = format!("said {code}\nand more\n");
            let result = Ok(ProbeResult { code: Some(*code), output });
            let verdict = watch.ended(number, result, due + SECOND, Date::EPOCH);
            let state = watch.health().expect("it is probed").state;
            let seconds = due.since_origin().as_secs();
            writeln!(text, "{seconds} {code}: {state} {verdict:?}").unwrap();
        }
        text
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy() {
        let text = play(&mut begun(probe()), &[1, 0, 1, 1, 0, 1, 1, 7]);
        expect_test::expect![[r#"
            30 1: starting Failed("said 1")
            61 0: healthy Passed
            92 1: healthy Failed("said 1")
            123 1: healthy Failed("said 1")
            154 0: healthy Passed
            185 1: healthy Failed("said 1")
            216 1: healthy Failed("said 1")
            247 7: unhealthy Unhealthy("said 7")
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn failures_within_the_start_period_do_not_count_until_a_success() {
        let lenient = Probe { start_period: 10 * SECOND, retries: 1, ..probe() };
        let text = play(&mut begun(lenient.clone()), &[1, 1, 1, 1, 1]);
        expect_test::expect![[r#"
            2 1: starting Failed("said 1")
            5 1: starting Failed("said 1")
            8 1: starting Failed("said 1")
            11 1: unhealthy Unhealthy("said 1")
            42 1: unhealthy Unhealthy("said 1")
        "#]]
        .assert_eq(&text);
        let text = play(&mut begun(lenient), &[1, 0, 1]);
        expect_test::expect![[r#"
            2 1: starting Failed("said 1")
            5 0: healthy Passed
            36 1: unhealthy Unhealthy("said 1")
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn one_that_was_well_before_is_not_failed_by_its_first_probe() {
        let mut watch = Watch::new();
        watch.learn(Some(Probe { retries: 1, ..probe() }));
        watch.adopt(&TaskId::from_bits(5), Moment::ZERO);
        let due = watch.due().expect("a probe is due");
        assert!(due > Moment::ZERO && due <= at(30), "{due:?}");
        assert_eq!(watch.health().map(|health| health.state), Some(HealthState::Healthy));
        let text = play(&mut watch, &[1, 1]);
        let verdicts: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(3)).collect();
        assert_eq!(verdicts, ["Failed(\"said", "Unhealthy(\"said"], "{text}");
    }

    #[test]
    fn many_that_are_adopted_at_once_are_probed_one_after_another() {
        let due = |number: u128| {
            let mut watch = Watch::new();
            watch.learn(Some(probe()));
            watch.adopt(&TaskId::from_bits(number * 7_919), Moment::ZERO);
            watch.due().expect("a probe is due")
        };
        let times: std::collections::BTreeSet<Moment> = (1..=100).map(due).collect();
        assert!(times.len() > 60, "{}", times.len());
    }

    #[test]
    fn what_was_not_found_out_does_not_count() {
        let mut watch = begun(Probe { retries: 1, ..probe() });
        watch.start(1, at(30), Date::EPOCH);
        let away = Failure { message: "containerd does not answer".into(), temporary: true };
        assert_eq!(watch.ended(1, Err(away), at(31), Date::EPOCH), Verdict::Nothing);
        assert_eq!(watch.due(), Some(at(61)));
        // An answer that never comes is not waited for for ever.
        watch.start(2, at(61), Date::EPOCH);
        assert_eq!((watch.due(), watch.limit()), (None, Some(at(126))));
        watch.expire(at(125));
        assert_eq!(watch.due(), None);
        watch.expire(at(126));
        assert_eq!(watch.due(), Some(at(156)));
        let late = Ok(ProbeResult { code: Some(1), output: String::new() });
        assert_eq!(watch.ended(2, late, at(127), Date::EPOCH), Verdict::Nothing);
        assert!(watch.health().is_some_and(|health| health.log.is_empty()));
    }

    #[test]
    fn what_cannot_be_run_or_takes_too_long_has_failed() {
        let mut watch = begun(Probe { retries: 2, ..probe() });
        watch.start(1, at(30), Date::EPOCH);
        let missing = Failure { message: "curl: not found".into(), temporary: false };
        let verdict = watch.ended(1, Err(missing), at(31), Date::EPOCH);
        assert_eq!(verdict, Verdict::Failed("curl: not found".into()));
        watch.start(2, at(61), Date::EPOCH);
        let slow = Ok(ProbeResult { code: None, output: String::new() });
        let verdict = watch.ended(2, slow, at(66), Date::EPOCH);
        let text = "Health check exceeded timeout (5s)".to_owned();
        assert_eq!(verdict, Verdict::Unhealthy(text));
        let codes: Vec<i32> = watch.health().unwrap().log.iter().map(|log| log.code).collect();
        assert_eq!(codes, [-1, -1]);
    }

    #[test]
    fn little_is_remembered() {
        let mut watch = begun(probe());
        for number in 1..=9 {
            let due = watch.due().unwrap();
            watch.start(number, due, Date::EPOCH);
            let result = Ok(ProbeResult { code: Some(0), output: "ü".repeat(9_000) });
            watch.ended(number, result, due, Date::EPOCH);
        }
        let log = &watch.health().unwrap().log;
        assert_eq!(log.len(), LOG_MAX);
        assert!(log.iter().all(|log| log.output.len() <= OUTPUT_MAX));
    }
}
