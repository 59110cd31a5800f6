//! How tasks are replaced.

use super::{invalid, wait};
use crate::{
    cluster::request::Refusal,
    types::{FailureAction, ServiceSpec, UpdateConfig},
};

/// Checks how the service's tasks are replaced, on the way forth and on the way back.
pub(super) fn check(spec: &ServiceSpec) -> Result<(), Refusal> {
    for (verb, config) in [("update", &spec.update), ("rollback", &spec.rollback)] {
        // The defaults of a job say nothing: clients read them and send them back.
        if spec.mode.is_job() && *config != UpdateConfig::default() {
            return Err(invalid("update and rollback configuration is not supported for jobs"));
        }
        wait(&format!("{verb}-delay"), config.delay)?;
        wait(&format!("{verb}-monitor"), config.monitor)?;
        wait(&format!("{verb}-progress-deadline"), config.progress_deadline)?;
    }
    if spec.rollback.failure_action == FailureAction::Rollback {
        return Err(invalid(
            "rollback-failure-action cannot be rollback: pause or continue is expected",
        ));
    }
    Ok(())
}
