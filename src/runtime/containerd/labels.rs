//! The labels that midge puts on what it makes in containerd.

use crate::types::{Labels, Task};
use std::collections::HashMap;

/// Marks what belongs to a task, and names it.
pub(in crate::runtime) const TASK: &str = "io.midge.task";

/// Where the task's log is.
pub(in crate::runtime) const LOG_PATH: &str = "io.midge.log-path";

/// The signal that asks the container to stop, from the task or its image.
pub(in crate::runtime) const STOP_SIGNAL: &str = "io.midge.stop-signal";

/// Tells containerd's collector to leave a snapshot alone even before its container is recorded.
pub(in crate::runtime) const GC_ROOT: &str = "containerd.io/gc.root";

/// containerd refuses a label whose key and value together are longer.
const LABEL_MAX: usize = 4096;

/// Returns the labels of a task's container: the image's, the user's, Swarm's, and ours.
pub(in crate::runtime) fn container(
    task: &Task,
    image: &Labels,
    log_path: &str,
    stop_signal: &str,
) -> HashMap<String, String> {
    let node = task.node.as_ref().map_or("", |node| node.as_str());
    let name = task.full_name();
    let own = [
        ("com.docker.swarm.node.id", node),
        ("com.docker.swarm.service.id", task.service.as_str()),
        ("com.docker.swarm.service.name", &task.service_name),
        ("com.docker.swarm.task", ""),
        ("com.docker.swarm.task.id", task.id.as_str()),
        ("com.docker.swarm.task.name", &name),
        (TASK, task.id.as_str()),
        (LOG_PATH, log_path),
        (STOP_SIGNAL, stop_signal),
    ];
    let given = image.iter().chain(&task.spec.container.labels);
    let mut labels: HashMap<String, String> = given
        .filter(|(key, value)| key.len() + value.len() <= LABEL_MAX)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    labels.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels
}
