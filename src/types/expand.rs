//! What a container runs once it is known where: the templates in its options, expanded.
//!
//! Pure: what the templates may name is an argument. The agent expands for the node it is; the
//! manager tries with a node of its imagination, so that a typing error is refused at once.

use super::{
    ContainerSpec, Labels, Mount, MountKind, NodeDescription, Platform, ServiceSpec, Task,
    mount::validate_mounts,
    name::validate_hostname,
    template::{InvalidTemplate, Template, Value, is_template},
};

/// What templates may name.
#[derive(Debug, Clone)]
pub struct TemplateContext<'a> {
    service: &'a str,
    service_name: &'a str,
    service_labels: &'a Labels,
    node: &'a str,
    hostname: &'a str,
    os: &'a str,
    architecture: String,
    task: &'a str,
    task_name: String,
    /// The slot, or the node of a task without one.
    slot: String,
}

/// A container's options that cannot be expanded, or not to something that can run. The texts are
/// Swarm's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expanding {what} failed: {cause}")]
pub struct ExpandFailed {
    /// Which option.
    what: &'static str,
    cause: String,
}

fn failed(what: &'static str, cause: impl ToString) -> ExpandFailed {
    ExpandFailed { what, cause: cause.to_string() }
}

impl<'a> TemplateContext<'a> {
    /// Returns what the templates of this task may name on this node.
    #[must_use]
    pub fn of(task: &'a Task, node: &'a NodeDescription) -> Self {
        let id = task.node.as_ref().map_or("", |node| node.as_str());
        Self {
            service: task.service.as_str(),
            service_name: &task.service_name,
            service_labels: &task.service_labels,
            node: id,
            hostname: &node.hostname,
            os: &node.platform.os,
            architecture: node.platform.kernel_name(),
            task: task.id.as_str(),
            task_name: task.full_name(),
            slot: if task.slot == 0 { id.to_owned() } else { task.slot_number().to_string() },
        }
    }

    /// Returns what a task of this service could name somewhere.
    #[must_use]
    pub fn imagined(spec: &'a ServiceSpec) -> Self {
        Self {
            service: "serviceid",
            service_name: &spec.name,
            service_labels: &spec.labels,
            node: "nodeid",
            hostname: "hostname",
            os: "linux",
            architecture: Platform::normalized("linux", "amd64", "").kernel_name(),
            task: "taskid",
            task_name: format!("{}.1.taskid", spec.name),
            slot: "1".to_owned(),
        }
    }

    fn root(&self) -> Value<'_> {
        let platform = Value::Record(vec![
            ("OS", Value::text(self.os)),
            ("Architecture", Value::text(&self.architecture)),
        ]);
        Value::Record(vec![
            (
                "Service",
                Value::Record(vec![
                    ("ID", Value::text(self.service)),
                    ("Name", Value::text(self.service_name)),
                    ("Labels", Value::Map(self.service_labels)),
                ]),
            ),
            (
                "Node",
                Value::Record(vec![
                    ("ID", Value::text(self.node)),
                    ("Hostname", Value::text(self.hostname)),
                    ("Platform", platform),
                ]),
            ),
            (
                "Task",
                Value::Record(vec![
                    ("ID", Value::text(self.task)),
                    ("Name", Value::text(&self.task_name)),
                    ("Slot", Value::text(&self.slot)),
                ]),
            ),
        ])
    }
}

/// Tells whether a container's options hold templates at all.
#[must_use]
pub fn has_templates(spec: &ContainerSpec) -> bool {
    is_template(&spec.hostname)
        || spec.env.iter().any(|entry| is_template(entry))
        || spec.sysctls.values().any(|value| is_template(value))
        || spec.mounts.iter().any(|mount| texts(mount).any(|text| is_template(text)))
}

/// The texts of a mount that are templates.
fn texts(mount: &Mount) -> impl Iterator<Item = &String> {
    let (source, options) = match &mount.kind {
        MountKind::Bind { source, .. } => (Some(source), None),
        MountKind::Volume { name, options } => (Some(name), Some(options)),
        MountKind::Tmpfs { .. } => (None, None),
    };
    let values = options.into_iter().flat_map(|options| {
        options.labels.values().chain(options.options.values()).chain([&options.subpath])
    });
    [&mount.target].into_iter().chain(source).chain(values)
}

/// Returns the container's options with their templates expanded: host name, environment, mounts
/// (source, target, and a volume's subpath, labels and driver options) and the values of kernel
/// parameters.
///
/// # Errors
///
/// A template cannot be expanded, or what came of it is no host name or no mount.
pub fn expand_container(
    spec: &ContainerSpec,
    context: &TemplateContext<'_>,
) -> Result<ContainerSpec, ExpandFailed> {
    let root = context.root();
    let mut expanded = spec.clone();
    if !has_templates(spec) {
        return Ok(expanded);
    }
    for entry in &mut expanded.env {
        expand(entry, &root)
            .map_err(|error| failed("env", format!("expanding env {entry:?}: {error}")))?;
        if entry.split('=').next().unwrap_or("").is_empty() {
            return Err(failed("env", format!("invalid environment variable: {entry}")));
        }
    }
    for mount in &mut expanded.mounts {
        expand_mount(mount, &root).map_err(|cause| failed("mounts", cause))?;
    }
    validate_mounts(&expanded.mounts).map_err(|error| failed("mounts", error))?;
    for (key, value) in &mut expanded.sysctls {
        expand(value, &root)
            .map_err(|error| failed("sysctls", format!("expanding sysctl {key:?}: {error}")))?;
    }
    expand(&mut expanded.hostname, &root).map_err(|error| failed("hostname", error))?;
    if !expanded.hostname.is_empty() {
        validate_hostname(&expanded.hostname).map_err(|error| failed("hostname", error))?;
    }
    Ok(expanded)
}

/// Expands in place; leaves the text as it is where it cannot.
fn expand(text: &mut String, root: &Value<'_>) -> Result<(), InvalidTemplate> {
    if is_template(text) {
        *text = Template::parse(text)?.expand(root)?;
    }
    Ok(())
}

fn expand_mount(mount: &mut Mount, root: &Value<'_>) -> Result<(), String> {
    let one = |what: &str, text: &mut String| {
        expand(text, root).map_err(|error| format!("expanding {what} {text:?}: {error}"))
    };
    match &mut mount.kind {
        MountKind::Bind { source, .. } => one("mount source", source)?,
        MountKind::Volume { name, options } => {
            one("mount source", name)?;
            one("volume subpath", &mut options.subpath)?;
            for value in options.labels.values_mut() {
                one("volume labels", value)?;
            }
            for value in options.options.values_mut() {
                one("volume driver config", value)?;
            }
        }
        MountKind::Tmpfs { .. } => {}
    }
    one("mount target", &mut mount.target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BindOptions, VolumeOptions};

    fn spec(hostname: &str, env: &[&str], source: &str) -> ServiceSpec {
        let mut spec = ServiceSpec { name: "web".to_owned(), ..ServiceSpec::default() };
        spec.labels.insert("zone".to_owned(), "north".to_owned());
        let container = &mut spec.task.container;
        hostname.clone_into(&mut container.hostname);
        container.env = env.iter().map(|entry| (*entry).to_owned()).collect();
        let kind = if source.starts_with('/') {
            MountKind::Bind { source: source.to_owned(), options: BindOptions::default() }
        } else {
            MountKind::Volume { name: source.to_owned(), options: VolumeOptions::default() }
        };
        container.mounts = vec![Mount { kind, target: "/data".to_owned(), read_only: false }];
        spec
    }

    fn expanded(spec: &ServiceSpec) -> Result<ContainerSpec, String> {
        let context = TemplateContext::imagined(spec);
        expand_container(&spec.task.container, &context).map_err(|error| error.to_string())
    }

    #[test]
    fn every_field_of_swarms_expands() {
        let all = "{{.Service.ID}} {{.Service.Name}} {{index .Service.Labels \"zone\"}} \
                   {{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.OS}} \
                   {{.Node.Platform.Architecture}} {{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}";
        let spec =
            spec("{{.Service.Name}}-{{.Task.Slot}}", &[&format!("A={all}")], "v-{{.Task.ID}}");
        let found = expanded(&spec).unwrap();
        assert_eq!(found.hostname, "web-1");
        assert_eq!(
            found.env,
            ["A=serviceid web north nodeid hostname linux x86_64 taskid web.1.taskid 1"]
        );
        assert!(
            matches!(&found.mounts[0].kind, MountKind::Volume { name, .. } if name == "v-taskid")
        );
    }

    #[test]
    fn a_failure_names_the_option() {
        for (spec, message) in [
            (spec("{{.Nope}}", &[], "vv"), "expanding hostname failed: template: expansion: can't"),
            (spec("{{print \"a b\"}}", &[], "vv"), "expanding hostname failed: hostname \"a b\""),
            (
                spec("", &["A={{.Nope}}"], "vv"),
                "expanding env failed: expanding env \"A={{.Nope}}\": template: expansion: can't",
            ),
            (spec("", &["{{print \"\"}}=b"], "vv"), "expanding env failed: invalid environment"),
            (spec("", &["A={{env \"HOME\"}}"], "vv"), "function \"env\" not defined"),
            (spec("", &[], "{{.Nope}}"), "expanding mounts failed: expanding mount source"),
            (spec("", &[], "{{print \"../x\"}}"), "expanding mounts failed: invalid volume mount"),
        ] {
            let error = expanded(&spec).unwrap_err();
            assert!(error.starts_with(message) || error.contains(message), "{error}");
        }
    }
}
