//! How the tasks of a service are replaced.

use super::{duration, nanos};
use crate::{
    api::{dto, error::invalid},
    cluster::Refusal,
    types::{FailureAction, Ratio, UPDATE_MONITOR, UpdateConfig, UpdateOrder},
};

/// Reads how tasks are replaced. `verb` is `update` or `rollback`, for refusals. Where nothing is said
/// Swarm's defaults are meant, but for midge's own deadline, which stays that of `previous`.
pub(super) fn to_update(
    dto: Option<&dto::UpdateConfig>,
    verb: &str,
    previous: Option<&UpdateConfig>,
) -> Result<UpdateConfig, Refusal> {
    let default = UpdateConfig::default();
    let kept = previous.map_or(default.progress_deadline, |old| old.progress_deadline);
    let Some(dto) = dto else { return Ok(UpdateConfig { progress_deadline: kept, ..default }) };
    let read = |nanos: i64, option: &str| duration(nanos, &format!("TaskSpec: {verb}-{option}"));
    Ok(UpdateConfig {
        parallelism: dto.parallelism,
        delay: read(dto.delay, "delay")?,
        failure_action: to_failure_action(&dto.failure_action, verb)?,
        // As in Swarm: no time at all cannot be asked for.
        monitor: match dto.monitor {
            0 => UPDATE_MONITOR,
            nanos => read(nanos, "monitor")?,
        },
        max_failure_ratio: Ratio::from_fraction(dto.max_failure_ratio).ok_or_else(|| {
            invalid(format!(
                "TaskSpec: {verb}-maxfailureratio cannot be less than 0 or bigger than 1"
            ))
        })?,
        order: to_order(&dto.order, verb)?,
        progress_deadline: match dto.progress_deadline {
            None => kept,
            Some(nanos) => read(nanos, "progress-deadline")?,
        },
    })
}

fn to_failure_action(text: &str, verb: &str) -> Result<FailureAction, Refusal> {
    Ok(match text {
        "" | "pause" => FailureAction::Pause,
        "continue" => FailureAction::Continue,
        "rollback" => FailureAction::Rollback,
        other => return Err(invalid(format!("unrecognized {verb} failure action {other}"))),
    })
}

fn to_order(text: &str, verb: &str) -> Result<UpdateOrder, Refusal> {
    Ok(match text {
        "" | "stop-first" => UpdateOrder::StopFirst,
        "start-first" => UpdateOrder::StartFirst,
        other => return Err(invalid(format!("unrecognized {verb} order {other}"))),
    })
}

/// Shows how tasks are replaced. Defaults are left out unless they are asked for.
pub(super) fn from_update(config: &UpdateConfig, defaults: bool) -> Option<dto::UpdateConfig> {
    let said = defaults || *config != UpdateConfig::default();
    said.then(|| dto::UpdateConfig {
        parallelism: config.parallelism,
        delay: nanos(config.delay),
        failure_action: config.failure_action.as_str().to_owned(),
        monitor: nanos(config.monitor),
        max_failure_ratio: config.max_failure_ratio.fraction(),
        order: config.order.as_str().to_owned(),
        progress_deadline: Some(nanos(config.progress_deadline)),
    })
}
