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
    // One list, so that whatever stands behind the image is the container's, as of Docker's.
    /// The image, and what runs instead of its arguments
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "ARG"], num_args = 1..)]
    image: Vec<String>,
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
    #[arg(short, long, value_parser = parse_publish, value_name = "[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]")]
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
    wait: WaitArgs,
    #[command(flatten)]
    scalars: ScalarArgs,
}

impl CreateArgs {
    fn image(&self) -> &str {
        self.image.first().map_or("", String::as_str)
    }

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
                "ContainerSpec": {"Image": self.image()},
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
        let arguments = self.image.iter().skip(1).cloned();
        set(container, "Args", arguments.map(Value::from).collect());
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
    let auth = if args.with_registry_auth { resolve::registry_auth(args.image())? } else { None };
    let unpinned = match args.no_resolve_image {
        true => None,
        false => resolve::pin(client, &mut spec, auth.as_ref())?,
    };
    let call = Call { registry_auth: auth, body: Some(spec) };
    let answer = client.json(hyper::Method::POST, "/services/create", call)?;
    for warning in list(&answer, "/Warnings") {
        output::note(warning.as_str().unwrap_or(""));
    }
    unpinned.iter().for_each(|warning| output::note(warning));
    let id = text(&answer, "/ID");
    output::line(id)?;
    progress::wait(client, id, args.wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    #[test]
    fn what_stands_behind_the_image_is_the_containers() {
        for (words, arguments) in [
            ("bb:1", json!(null)),
            ("bb:1 top -d 1", json!(["top", "-d", "1"])),
            (
                "bb:1 --name inner -p 80 --env a",
                json!(["--name", "inner", "-p", "80", "--env", "a"]),
            ),
            ("bb:1 -- --help", json!(["--", "--help"])),
        ] {
            let words = format!("create --name outer -p mode=host,target=8080 {words}");
            let spec = Line::parse_from(words.split(' ')).args.spec().unwrap();
            assert_eq!(spec["Name"], "outer", "{words}");
            assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Args"], arguments, "{words}");
            assert_eq!(spec["EndpointSpec"]["Ports"].as_array().unwrap().len(), 1, "{words}");
        }
        assert!(Line::try_parse_from(["create", "--nope", "bb:1"]).is_err());
    }
}
