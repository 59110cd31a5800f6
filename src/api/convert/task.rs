//! Tasks.

use super::{date, job, show, version};
use crate::{
    api::dto,
    types::{ReasonCode, Task, TaskStatus},
};

/// Shows a task.
#[must_use]
pub fn from_task(task: &Task) -> dto::Task {
    let addresses = task.attachments.iter().flat_map(|attachment| attachment.addresses.clone());
    let reasons = task.reasons.iter().map(|reason| dto::Reason {
        code: reason_code(reason.code).to_owned(),
        timestamp: date(reason.date),
    });
    dto::Task {
        id: task.id.to_string(),
        version: version(task.version),
        created_at: date(task.created),
        updated_at: date(task.updated),
        name: task.short_name(),
        labels: crate::types::Labels::new(),
        spec: show::from_task_spec(&task.spec),
        service_id: task.service.to_string(),
        slot: task.slot_number(),
        node_id: task.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        status: from_status(&task.status),
        desired_state: task.desired.as_str().to_owned(),
        networks_attachments: Vec::new(),
        job_iteration: task.job_iteration.map(|index| dto::Iteration { index }),
        generic_resources: job::from_generic(&task.generic),
        assigned_generic_resources: job::from_generic(&task.generic),
        addresses: addresses.collect(),
        reasons: reasons.collect(),
    }
}

fn from_status(status: &TaskStatus) -> dto::TaskStatus {
    let has_container = !status.container.is_empty() || status.exit_code.is_some();
    dto::TaskStatus {
        timestamp: date(status.date),
        state: status.state.as_str().to_owned(),
        message: status.message.clone(),
        err: status.error.clone(),
        container_status: has_container.then(|| dto::ContainerStatus {
            container_id: status.container.clone(),
            pid: status.pid,
            exit_code: status.exit_code.unwrap_or(0),
        }),
        port_status: dto::PortStatus {
            ports: status.ports.iter().map(|port| show::from_port(&port.port)).collect(),
        },
    }
}

fn reason_code(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::ServiceScaled => "service-scaled",
        ReasonCode::Restarted => "restarted",
        ReasonCode::SpecChanged => "spec-changed",
        ReasonCode::NodeLost => "node-lost",
        ReasonCode::NodeDrained => "node-drained",
        ReasonCode::ConstraintViolated => "constraint-violated",
        ReasonCode::LocalRestart => "local-restart",
        ReasonCode::NoLongerWanted => "no-longer-wanted",
        ReasonCode::Superseded => "superseded",
        ReasonCode::NodeJoined => "node-joined",
    }
}
