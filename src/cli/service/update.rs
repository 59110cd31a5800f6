//! `midge service update`.

use super::{WaitArgs, generic, get, plan, post_update, progress, resolve, spec::*};
use crate::cli::{
    client::Client,
    exit::{CliError, Exit},
    human::{parse_label, text},
    output,
};
use clap::Args;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(in crate::cli) struct UpdateArgs {
    /// The id, a prefix of it, or the name
    service: String,
    /// The image
    #[arg(long)]
    image: Option<String>,
    /// What runs instead of the image's arguments
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    args: Option<String>,
    /// Replace every task even where nothing changed
    #[arg(long)]
    force: bool,
    /// Give the service its previous spec back; goes with no other option
    #[arg(long)]
    rollback: bool,
    /// Print which tasks would be replaced, in which order, and where they would go; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Set an environment variable (can be repeated)
    #[arg(long, value_parser = parse_env, value_name = "NAME[=VALUE]")]
    env_add: Vec<String>,
    /// Remove an environment variable (can be repeated)
    #[arg(long, value_name = "NAME")]
    env_rm: Vec<String>,
    /// Label the service (can be repeated)
    #[arg(long, value_parser = parse_label, value_name = "KEY=VALUE")]
    label_add: Vec<(String, String)>,
    /// Remove a label of the service (can be repeated)
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// Label the containers (can be repeated)
    #[arg(long, value_parser = parse_label, value_name = "KEY=VALUE")]
    container_label_add: Vec<(String, String)>,
    /// Remove a label of the containers (can be repeated)
    #[arg(long, value_name = "KEY")]
    container_label_rm: Vec<String>,
    /// Add or change a mount (can be repeated)
    #[arg(long, value_parser = parse_mount, value_name = "type=TYPE,src=SOURCE,dst=TARGET[,ro]")]
    mount_add: Vec<Value>,
    /// Remove the mount at this path inside the container (can be repeated)
    #[arg(long, value_name = "TARGET")]
    mount_rm: Vec<String>,
    /// Add a constraint (can be repeated)
    #[arg(long, value_name = "EXPRESSION")]
    constraint_add: Vec<String>,
    /// Remove a constraint (can be repeated)
    #[arg(long, value_name = "EXPRESSION")]
    constraint_rm: Vec<String>,
    /// Add a placement preference (can be repeated)
    #[arg(long, value_parser = parse_preference, value_name = "spread=LABEL")]
    placement_pref_add: Vec<Value>,
    /// Remove a placement preference (can be repeated)
    #[arg(long, value_parser = parse_preference, value_name = "spread=LABEL")]
    placement_pref_rm: Vec<Value>,
    /// Reserve so many things of a kind, or another number of them (can be repeated)
    #[arg(long, value_parser = generic::parse, value_name = "KIND=N")]
    generic_resource_add: Vec<Value>,
    /// Reserve nothing of a kind any more (can be repeated)
    #[arg(long, value_name = "KIND")]
    generic_resource_rm: Vec<String>,
    /// Publish a port (can be repeated)
    #[arg(long, value_parser = parse_publish, value_name = "[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]")]
    publish_add: Vec<Ports>,
    /// Publish a port no more, by its target (can be repeated)
    #[arg(long, value_name = "[PUBLISHED:]TARGET[/PROTOCOL]")]
    publish_rm: Vec<String>,
    /// Join a network (can be repeated)
    #[arg(long, value_name = "NETWORK")]
    network_add: Vec<String>,
    /// Leave a network (can be repeated)
    #[arg(long, value_name = "NETWORK")]
    network_rm: Vec<String>,
    /// Send the login for the image's registry along to the nodes
    #[arg(long)]
    with_registry_auth: bool,
    /// Do not ask the registry for the image's digest and platforms
    #[arg(long)]
    no_resolve_image: bool,
    #[command(flatten)]
    lists: ListChanges,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    scalars: ScalarArgs,
}

impl UpdateArgs {
    fn apply(&self, spec: &mut Value) -> Result<(), CliError> {
        let counted = ["Replicated", "ReplicatedJob"].iter().any(|m| spec["Mode"].get(m).is_some());
        if self.scalars.replicas.is_some() && !counted {
            return Err(CliError::failure("replicas can only be used with replicated mode"));
        }
        self.scalars.apply(spec)?;
        spec["Labels"] = merge_labels(&spec["Labels"], &self.label_add, &self.label_rm);
        let task = &mut spec["TaskTemplate"];
        self.apply_container(&mut task["ContainerSpec"])?;
        self.apply_placement(task);
        self.apply_generic(task)?;
        if self.force {
            let force = task["ForceUpdate"].as_u64().unwrap_or(0);
            task["ForceUpdate"] = json!(force + 1);
        }
        self.apply_ports(&mut spec["EndpointSpec"])
    }

    fn apply_container(&self, container: &mut Value) -> Result<(), CliError> {
        if let Some(image) = &self.image {
            container["Image"] = json!(image);
        }
        if let Some(args) = &self.args {
            let words = split_command(args)?;
            set_list(container, "Args", words.into_iter().map(Value::from).collect());
        }
        let env = take_list(container, "/Env");
        set_list(container, "Env", merge_env(&env, &self.env_add, &self.env_rm));
        if !self.container_label_add.is_empty() || !self.container_label_rm.is_empty() {
            container["Labels"] = merge_labels(
                &container["Labels"],
                &self.container_label_add,
                &self.container_label_rm,
            );
        }
        let mounts = take_list(container, "/Mounts");
        let mounts = merge_mounts(mounts, &self.mount_add, &self.mount_rm)?;
        set_list(container, "Mounts", mounts);
        self.lists.apply(container)
    }

    fn apply_placement(&self, task: &mut Value) {
        if task["Placement"].is_null() {
            task["Placement"] = json!({});
        }
        let placement = &mut task["Placement"];
        let constraints = take_list(placement, "/Constraints");
        let merged = merge_texts(constraints, &self.constraint_add, &self.constraint_rm);
        set_list(placement, "Constraints", merged);
        let mut preferences = take_list(placement, "/Preferences");
        preferences.retain(|p| !self.placement_pref_rm.contains(p));
        preferences.extend(self.placement_pref_add.iter().cloned());
        set_list(placement, "Preferences", preferences);
        let mut networks = take_list(task, "/Networks");
        networks.retain(|n| !self.network_rm.iter().any(|rm| rm == text(n, "/Target")));
        networks.extend(self.network_add.iter().map(|n| json!({"Target": n})));
        set_list(task, "Networks", networks);
    }

    fn apply_generic(&self, task: &mut Value) -> Result<(), CliError> {
        let (add, remove) = (&self.generic_resource_add, &self.generic_resource_rm);
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let old = take_list(task, "/Resources/Reservations/GenericResources");
        let merged = generic::merge(&old, add, remove)?;
        if task["Resources"]["Reservations"].is_null() {
            task["Resources"]["Reservations"] = json!({});
        }
        set_list(&mut task["Resources"]["Reservations"], "GenericResources", merged);
        Ok(())
    }

    fn apply_ports(&self, endpoint: &mut Value) -> Result<(), CliError> {
        if endpoint.is_null() {
            *endpoint = json!({"Mode": "vip"});
        }
        let ports = take_list(endpoint, "/Ports");
        set_list(endpoint, "Ports", merge_ports(ports, &self.publish_add, &self.publish_rm)?);
        Ok(())
    }
}

pub(super) fn run(client: &Client, args: &UpdateArgs) -> Result<Exit, CliError> {
    if args.rollback {
        return super::rollback(client, &args.service, args.wait);
    }
    let service = get(client, &args.service)?;
    let mut spec = service["Spec"].clone();
    args.apply(&mut spec)?;
    let image = text(&spec, "/TaskTemplate/ContainerSpec/Image").to_owned();
    let auth = if args.with_registry_auth { resolve::registry_auth(&image)? } else { None };
    let mut unpinned = None;
    if args.image.is_some() && !args.no_resolve_image {
        unpinned = resolve::pin(client, &mut spec, auth.as_ref())?;
    }
    let mut query = if auth.is_some() { "" } else { "&registryAuthFrom=spec" }.to_owned();
    if args.dry_run {
        query.push_str(plan::QUERY);
    }
    let answer = post_update(client, &service, spec, &query, auth)?;
    unpinned.iter().for_each(|warning| output::note(warning));
    if args.dry_run {
        return plan::show(client, &answer);
    }
    output::line(&args.service)?;
    progress::wait(client, &args.service, args.wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: UpdateArgs,
    }

    /// Returns the body of the request by which these options change a spec.
    fn body(mut spec: Value, options: &str) -> Result<Value, String> {
        let words = ["update", "web"].into_iter().chain(options.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.args.apply(&mut spec).map(|()| spec).map_err(|error| error.message)
    }

    #[test]
    fn how_updates_go_is_changed_and_nothing_else() {
        let mut spec = json!({
            "Name": "web", "Labels": {"a": "b"}, "Mode": {"Replicated": {"Replicas": 3}},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "bb:1", "DNSConfig": {}}, "Placement": {}, "ForceUpdate": 0,
            },
            "UpdateConfig": {"Parallelism": 2, "Monitor": 1, "MaxFailureRatio": 0, "Order": "stop-first"},
            "EndpointSpec": {"Mode": "vip"},
        });
        let found = body(spec.clone(), "--update-order start-first --update-parallelism 0");
        spec["UpdateConfig"]["Order"] = json!("start-first");
        spec["UpdateConfig"]["Parallelism"] = json!(0);
        assert_eq!(found, Ok(spec));
    }

    #[test]
    fn what_has_a_task_a_node_has_no_replicas() {
        for mode in ["Global", "GlobalJob"] {
            assert_eq!(
                body(json!({"Mode": {mode: {}}}), "--replicas 2"),
                Err("replicas can only be used with replicated mode".to_owned())
            );
        }
    }
}
