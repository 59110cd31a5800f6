//! What clients of an older API leave out because they do not know it.
//!
//! Such a client reads a service, changes something, and sends back the fields that it has. The
//! version in the path of its request says which those are: what came later stays as it was, unless
//! the request has it all the same.

use crate::{
    api::dto,
    types::{BindOptions, Mount, MountKind, ServiceSpec},
};
use std::time::Duration;

/// A version of Docker's API, `1.46`.
type ApiVersion = (u16, u16);

// The first versions that have a field, by Docker's history of its API.
const HAS_OOM_SCORE_ADJ: ApiVersion = (1, 46);
const HAS_SUBPATH: ApiVersion = (1, 45);
const HAS_SECURITY: ApiVersion = (1, 44);
const HAS_START_INTERVAL: ApiVersion = (1, 44);
const HAS_RECURSIVE_READ_ONLY: ApiVersion = (1, 44);
const HAS_CREATE_MOUNTPOINT: ApiVersion = (1, 42);

/// Gives `spec`, which a client that speaks `version` asked for by `dto`, what that client does not
/// know of the spec `before`.
pub(crate) fn keep_unknown(
    spec: &mut ServiceSpec,
    dto: &dto::ServiceSpec,
    before: &ServiceSpec,
    version: ApiVersion,
) {
    let (new, old) = (&mut spec.task.container, &before.task.container);
    if version < HAS_OOM_SCORE_ADJ && new.oom_score_adj == 0 {
        new.oom_score_adj = old.oom_score_adj;
    }
    if version < HAS_SECURITY && !says_security(&dto.task_template.container_spec) {
        new.security.clone_from(&old.security);
    }
    if version < HAS_START_INTERVAL
        && let (Some(_), Some(old)) = (&dto.task_template.container_spec.healthcheck, &old.health)
        && old.start_interval != Duration::ZERO
    {
        // Where it is all that is set, such a client sends a health check that says nothing.
        let new = new.health.get_or_insert_default();
        if new.start_interval == Duration::ZERO {
            new.start_interval = old.start_interval;
        }
    }
    for mount in &mut new.mounts {
        let same = |old: &&Mount| old.target == mount.target;
        if let Some(old) = old.mounts.iter().find(same) {
            keep_mount(mount, old, version);
        }
    }
    // Those that differed by what was kept are in another order than before only now.
    new.mounts = super::container::in_order_of(Some(&old.mounts), std::mem::take(&mut new.mounts));
}

fn says_security(dto: &dto::ContainerSpec) -> bool {
    let in_docker = dto.privileges.as_ref().is_some_and(|privileges| {
        privileges.no_new_privileges
            || privileges.seccomp.is_some()
            || privileges.app_armor.is_some()
    });
    in_docker || dto.security_opt.is_some()
}

/// One that is of something else now has options of its own.
fn keep_mount(new: &mut Mount, old: &Mount, version: ApiVersion) {
    match (&mut new.kind, &old.kind) {
        (
            MountKind::Bind { source, options },
            MountKind::Bind { source: old_source, options: old },
        ) if source == old_source => keep_bind(options, *old, version),
        (
            MountKind::Volume { name, options },
            MountKind::Volume { name: old_name, options: old },
        ) if name == old_name && version < HAS_SUBPATH && options.subpath.is_empty() => {
            options.subpath.clone_from(&old.subpath);
        }
        _ => {}
    }
}

fn keep_bind(new: &mut BindOptions, old: BindOptions, version: ApiVersion) {
    if version < HAS_CREATE_MOUNTPOINT {
        new.create_source |= old.create_source;
    }
    let unsaid = !new.read_only_non_recursive && !new.read_only_force_recursive;
    if version < HAS_RECURSIVE_READ_ONLY && unsaid {
        new.read_only_non_recursive = old.read_only_non_recursive;
        new.read_only_force_recursive = old.read_only_force_recursive;
    }
}
