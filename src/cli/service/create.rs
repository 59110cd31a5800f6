//! `midge service create`.

use super::{WaitArgs, generic, progress, resolve, spec::*};
use crate::cli::{
    client::{Call, Client},
    exit::{CliError, Exit},
    human::{list, parse_label, text},
    output,
};
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    /// The image
    image: String,
    /// What runs instead of the image's arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    args: Vec<String>,
    /// What the service is called
    #[arg(long)]
    name: Option<String>,
    /// So many tasks (replicated), or one on every node that fits (global); as a job, until each
    /// has come to its end
    #[arg(
        long,
        default_value = "replicated",
        value_name = "replicated|global|replicated-job|global-job"
    )]
    mode: String,
    /// Set an environment variable (can be repeated)
    #[arg(short, long, value_parser = parse_env, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Label the service (can be repeated)
    #[arg(short, long, value_parser = parse_label, value_name = "KEY=VALUE")]
    label: Vec<(String, String)>,
    /// Label the containers (can be repeated)
    #[arg(long, value_parser = parse_label, value_name = "KEY=VALUE")]
    container_label: Vec<(String, String)>,
    /// Mount a folder of the node, a volume or memory (can be repeated)
    #[arg(long, value_parser = parse_mount, value_name = "type=TYPE,src=SOURCE,dst=TARGET[,ro]")]
    mount: Vec<Value>,
    /// Run only on nodes that fit, for example node.labels.zone==a (can be repeated)
    #[arg(long, value_name = "EXPRESSION")]
    constraint: Vec<String>,
    /// Spread over the values of a label, for example spread=node.labels.zone (can be repeated)
    #[arg(long, value_parser = parse_preference, value_name = "spread=LABEL")]
    placement_pref: Vec<Value>,
    /// Reserve so many things of a kind that nodes declare, for example gpu=1 (can be repeated)
    #[arg(long, value_parser = generic::parse, value_name = "KIND=N")]
    generic_resource: Vec<Value>,
    /// Publish ports on the task's node: mode=host,target=80,published=8080, or
    /// ADDRESS:8080:80 (can be repeated)
    #[arg(short, long, value_parser = parse_publish, value_name = "PORTS")]
    publish: Vec<Ports>,
    /// The network: bridge, host or none
    #[arg(long, value_name = "NETWORK")]
    network: Vec<String>,
    /// Send the login for the image's registry along to the nodes
    #[arg(long)]
    with_registry_auth: bool,
    /// Do not ask the registry for the image's digest and platforms
    #[arg(long)]
    no_resolve_image: bool,
    #[command(flatten)]
    lists: NewLists,
    #[command(flatten)]
    scalars: ScalarArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

impl CreateArgs {
    fn spec(&self) -> Result<Value, CliError> {
        let mode = match self.mode.as_str() {
            "replicated" => json!({"Replicated": {"Replicas": 1}}),
            "global" => json!({"Global": {}}),
            "replicated-job" => json!({"ReplicatedJob": {}}),
            "global-job" => json!({"GlobalJob": {}}),
            mode => {
                return Err(CliError::usage(format!(
                    "Unknown mode: {mode}, only replicated and global supported"
                )));
            }
        };
        let mut spec = json!({
            "Name": self.name.as_deref().unwrap_or(""),
            "Labels": merge_labels(&Value::Null, &self.label, &[]),
            "TaskTemplate": {
                "ContainerSpec": {"Image": self.image},
                "Resources": {"Limits": {}, "Reservations": {}},
                "Placement": {},
                "ForceUpdate": 0,
            },
            "Mode": mode,
            "EndpointSpec": {"Mode": "vip"},
        });
        self.scalars.apply(&mut spec)?;
        let file_variables: Vec<Value> =
            self.lists.file_variables()?.into_iter().map(Value::from).collect();
        let task = &mut spec["TaskTemplate"];
        let container = &mut task["ContainerSpec"];
        let set = |target: &mut Value, field: &str, values: Vec<Value>| {
            if !values.is_empty() {
                target[field] = Value::Array(values);
            }
        };
        set(container, "Args", self.args.iter().cloned().map(Value::from).collect());
        set(container, "Env", merge_env(&file_variables, &self.env, &[]));
        set(container, "Mounts", self.mount.clone());
        self.lists.apply(container)?;
        if !self.container_label.is_empty() {
            container["Labels"] = merge_labels(&Value::Null, &self.container_label, &[]);
        }
        set(
            &mut task["Resources"]["Reservations"],
            "GenericResources",
            generic::merge(&[], &self.generic_resource, &[])?,
        );
        set(
            &mut task["Placement"],
            "Constraints",
            self.constraint.iter().cloned().map(Value::from).collect(),
        );
        set(&mut task["Placement"], "Preferences", self.placement_pref.clone());
        set(task, "Networks", self.network.iter().map(|n| json!({"Target": n})).collect());
        set(&mut spec["EndpointSpec"], "Ports", merge_ports(Vec::new(), &self.publish, &[])?);
        Ok(spec)
    }
}

pub(super) fn run(client: &Client, args: &CreateArgs) -> Result<Exit, CliError> {
    let mut spec = args.spec()?;
    let auth = if args.with_registry_auth { resolve::registry_auth(&args.image)? } else { None };
    if !args.no_resolve_image {
        resolve::pin(client, &mut spec, auth.as_ref())?;
    }
    let call = Call { registry_auth: auth, body: Some(spec) };
    let answer = client.json(hyper::Method::POST, "/services/create", call)?;
    for warning in list(&answer, "/Warnings") {
        output::note(warning.as_str().unwrap_or(""));
    }
    let id = text(&answer, "/ID");
    output::line(id)?;
    progress::wait(client, id, args.wait)
}
