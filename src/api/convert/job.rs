//! Jobs and generic resources.

use super::date;
use crate::{
    api::{dto, error::invalid},
    cluster::Refusal,
    types::{GenericReservations, GenericResource, JobStatus, Mode},
};

/// Reads how many tasks a service has; nothing set is one replica.
///
/// # Errors
///
/// More than one mode is set.
pub(super) fn to_mode(dto: &dto::ServiceMode) -> Result<Mode, Refusal> {
    let job = dto.replicated_job.as_ref();
    let set =
        [dto.replicated.is_some(), dto.global.is_some(), job.is_some(), dto.global_job.is_some()];
    if set.into_iter().filter(|set| *set).count() > 1 {
        return Err(invalid("must specify only one service mode"));
    }
    if let Some(job) = job {
        let max_concurrent = job.max_concurrent.unwrap_or(1);
        let total_completions = job.total_completions.unwrap_or(max_concurrent);
        return Ok(Mode::ReplicatedJob { max_concurrent, total_completions });
    }
    Ok(match (&dto.global, &dto.global_job) {
        (Some(_), _) => Mode::Global,
        (None, Some(_)) => Mode::GlobalJob,
        (None, None) => {
            let replicas = dto.replicated.as_ref().and_then(|mode| mode.replicas).unwrap_or(1);
            Mode::Replicated { replicas }
        }
    })
}

/// Shows how many tasks a service has.
pub(super) fn from_mode(mode: Mode) -> dto::ServiceMode {
    let none = dto::ServiceMode::default();
    match mode {
        Mode::Replicated { replicas } => dto::ServiceMode {
            replicated: Some(dto::Replicated { replicas: Some(replicas) }),
            ..none
        },
        Mode::Global => dto::ServiceMode { global: Some(dto::Empty {}), ..none },
        Mode::ReplicatedJob { max_concurrent, total_completions } => {
            let job = dto::ReplicatedJob {
                max_concurrent: Some(max_concurrent),
                total_completions: Some(total_completions),
            };
            dto::ServiceMode { replicated_job: Some(job), ..none }
        }
        Mode::GlobalJob => dto::ServiceMode { global_job: Some(dto::Empty {}), ..none },
    }
}

/// Shows how often a job was set off.
pub(super) fn from_status(job: JobStatus) -> dto::JobStatus {
    dto::JobStatus {
        job_iteration: dto::Iteration { index: job.iteration },
        last_execution: date(job.last_execution),
    }
}

/// Reads what a task wants of generic resources.
///
/// # Errors
///
/// Something is asked for by name, twice, or fewer than none of it.
pub(super) fn to_generic(list: &[dto::GenericResource]) -> Result<GenericReservations, Refusal> {
    let mut wanted = GenericReservations::new();
    for resource in list {
        if let Some(named) = &resource.named_resource_spec {
            return Err(invalid(format!(
                "invalid generic-resource request `{}={}`, Named Generic Resources is not \
                 supported for service create or update",
                named.kind, named.value
            )));
        }
        let Some(discrete) = &resource.discrete_resource_spec else {
            return Err(invalid("invalid generic-resource: no DiscreteResourceSpec"));
        };
        let kind = &discrete.kind;
        let count = u64::try_from(discrete.value)
            .map_err(|_| invalid(format!("invalid argument for resource {kind}")))?;
        if wanted.insert(kind.clone(), count).is_some() {
            return Err(invalid(format!("duplicate generic-resource `{kind}` for service task")));
        }
    }
    Ok(wanted)
}

/// Shows what a task wants of generic resources.
pub(super) fn from_reservations(wanted: &GenericReservations) -> Vec<dto::GenericResource> {
    wanted.iter().map(|(kind, count)| discrete(kind, *count)).collect()
}

/// Shows what a node has of generic resources, or a task was given.
pub(super) fn from_generic(list: &[GenericResource]) -> Vec<dto::GenericResource> {
    let show = |resource: &GenericResource| match resource {
        GenericResource::Named { kind, name } => dto::GenericResource {
            named_resource_spec: Some(dto::NamedResource {
                kind: kind.clone(),
                value: name.clone(),
            }),
            discrete_resource_spec: None,
        },
        GenericResource::Discrete { kind, count } => discrete(kind, *count),
    };
    list.iter().map(show).collect()
}

fn discrete(kind: &str, count: u64) -> dto::GenericResource {
    dto::GenericResource {
        named_resource_spec: None,
        discrete_resource_spec: Some(dto::DiscreteResource {
            kind: kind.to_owned(),
            value: i64::try_from(count).unwrap_or(i64::MAX),
        }),
    }
}
