//! Services, as they are shown.

use super::{
    container::from_container, date, job, joined_architecture, nanos, update::from_update, version,
};
use crate::{
    api::dto,
    cluster::{Planned, PlannedTask},
    types::{
        Date, EndpointMode, ImagePin, LogConfig, NetworkMode, Placement, PortConfig, PublishMode,
        ResourceLimits, RestartCondition, STOP_GRACE, Service, ServiceSpec, TaskSpec,
    },
};

/// Shows a service. With `defaults` also what Docker fills in for people.
#[must_use]
pub fn from_service(service: &Service, defaults: bool) -> dto::Service {
    let spec = from_spec(&service.spec, defaults);
    let endpoint =
        dto::Endpoint { spec: spec.endpoint_spec.clone(), ports: spec.endpoint_spec.ports.clone() };
    dto::Service {
        id: service.id.to_string(),
        version: version(service.version),
        created_at: date(service.created),
        updated_at: date(service.updated),
        spec,
        // Docker fills in the present only.
        previous_spec: service.previous_spec.as_ref().map(|spec| from_spec(spec, false)),
        endpoint,
        update_status: service.update.as_ref().map(|update| dto::UpdateStatus {
            state: update.state.as_str().to_owned(),
            started_at: Some(date(update.started)),
            completed_at: (update.completed != Date::EPOCH).then(|| date(update.completed)),
            message: update.message.clone(),
        }),
        job_status: service.job.map(job::from_status),
        service_status: None,
        image_pin: service.spec.task.pin.as_ref().map(from_pin),
    }
}

/// Shows what an update would do.
#[must_use]
pub fn from_plan(plan: &[PlannedTask]) -> dto::Plan {
    let id = |id: Option<String>| id.unwrap_or_default();
    let shown = |planned: &PlannedTask| dto::PlannedTask {
        name: planned.task.clone(),
        action: match planned.what {
            Planned::Made => "create",
            Planned::Replaced => "replace",
            Planned::Ended => "remove",
        }
        .to_owned(),
        task_id: id(planned.old.as_ref().map(ToString::to_string)),
        from_node_id: id(planned.from.as_ref().map(ToString::to_string)),
        to_node_id: id(planned.to.as_ref().map(ToString::to_string)),
        error: planned.error.clone(),
    };
    dto::Plan { plan: plan.iter().map(shown).collect() }
}

fn from_pin(pin: &ImagePin) -> dto::ImagePin {
    dto::ImagePin {
        digest: pin.digest.clone(),
        nodes: pin.nodes.iter().map(ToString::to_string).collect(),
    }
}

/// Shows what is wanted of a service.
#[must_use]
pub fn from_spec(spec: &ServiceSpec, defaults: bool) -> dto::ServiceSpec {
    let mut task_template = from_task_spec(&spec.task);
    "container".clone_into(&mut task_template.runtime);
    if defaults && task_template.container_spec.stop_grace_period.is_none() {
        task_template.container_spec.stop_grace_period = Some(nanos(STOP_GRACE));
    }
    dto::ServiceSpec {
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        task_template,
        mode: job::from_mode(spec.mode),
        update_config: from_update(&spec.update, defaults),
        rollback_config: from_update(&spec.rollback, defaults),
        networks: Vec::new(),
        endpoint_spec: dto::EndpointSpec {
            mode: match spec.endpoint.mode {
                EndpointMode::Vip => "vip",
                EndpointMode::DnsRoundRobin => "dnsrr",
            }
            .to_owned(),
            ports: spec.endpoint.ports.iter().map(from_port).collect(),
        },
    }
}

/// Shows a port.
#[must_use]
pub fn from_port(port: &PortConfig) -> dto::Port {
    dto::Port {
        name: port.name.clone(),
        protocol: port.protocol.as_str().to_owned(),
        target_port: port.target.into(),
        published_port: port.published.into(),
        publish_mode: match port.mode {
            PublishMode::Host => "host",
            PublishMode::Ingress => "ingress",
        }
        .to_owned(),
        host_ip: port.host_ip.map(|address| address.to_string()),
    }
}

/// Shows what a task runs. Logins are never shown.
#[must_use]
pub fn from_task_spec(task: &TaskSpec) -> dto::TaskTemplate {
    let restart = &task.restart;
    dto::TaskTemplate {
        container_spec: from_container(&task.container),
        resources: from_resources(task),
        restart_policy: Some(dto::RestartPolicy {
            condition: match restart.condition {
                RestartCondition::None => "none",
                RestartCondition::OnFailure => "on-failure",
                RestartCondition::Any => "any",
            }
            .to_owned(),
            delay: Some(nanos(restart.delay)),
            max_attempts: Some(restart.max_attempts),
            window: (!restart.window.is_zero()).then(|| nanos(restart.window)),
            max_delay: Some(nanos(restart.max_delay)),
        }),
        placement: from_placement(&task.placement),
        networks: match task.network {
            NetworkMode::Bridge => Vec::new(),
            other => vec![dto::NetworkAttachment {
                target: other.as_str().to_owned(),
                ..Default::default()
            }],
        },
        log_driver: task.log.as_ref().map(from_log),
        force_update: task.force_update,
        ..Default::default()
    }
}

fn from_log(log: &LogConfig) -> dto::Driver {
    dto::Driver { name: log.driver.clone(), options: log.options.clone() }
}

fn from_resources(task: &TaskSpec) -> dto::ResourceRequirements {
    let (reserved, limits) = (&task.reservations, &task.limits);
    let amount = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    dto::ResourceRequirements {
        limits: dto::Amounts {
            nano_cpus: amount(limits.nano_cpus),
            memory_bytes: amount(limits.memory_bytes),
            pids: amount(limits.pids),
            generic_resources: Vec::new(),
        },
        reservations: dto::Amounts {
            nano_cpus: amount(reserved.nano_cpus),
            memory_bytes: amount(reserved.memory_bytes),
            generic_resources: job::from_reservations(&task.generic),
            ..Default::default()
        },
        swap_bytes: swap_bytes(limits),
        memory_swappiness: limits.swappiness.map(i64::from),
    }
}

/// Docker's limit of swap alone, where ours is of memory and swap together.
pub(super) fn swap_bytes(limits: &ResourceLimits) -> Option<i64> {
    let memory = i64::try_from(limits.memory_bytes).unwrap_or(i64::MAX);
    limits.memory_swap.map(|both| if both < 0 { -1 } else { both.saturating_sub(memory).max(0) })
}

fn from_placement(placement: &Placement) -> dto::Placement {
    let spread = placement.spread.iter().map(|label| dto::Preference {
        spread: Some(dto::Spread { spread_descriptor: label.clone() }),
    });
    let platforms = placement.platforms.iter().map(|platform| dto::Platform {
        architecture: joined_architecture(platform),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
    });
    dto::Placement {
        constraints: placement.constraints.iter().map(ToString::to_string).collect(),
        preferences: spread.collect(),
        max_replicas: placement.max_replicas_per_node,
        platforms: platforms.collect(),
    }
}
