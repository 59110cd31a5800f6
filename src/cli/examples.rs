//! Examples of every command, for its help, the man page and `docs/cli.md`.
//!
//! A test reads each of them as a command line, and wants at least one for each command.

/// Command lines with what they do, under the words of their command.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "daemon",
        &[
            ("midge daemon", "run this machine as a node, with everything in its usual place"),
            (
                "midge daemon --data-dir /srv/b --run-dir /run/b --socket /run/b.sock",
                "a second node on the same machine",
            ),
        ],
    ),
    (
        "swarm init",
        &[
            ("midge swarm init", "where the machine has one address"),
            ("midge swarm init --advertise-addr eth0", "tell the others the address of eth0"),
            ("midge swarm init --force-new-cluster", "go on alone, where the others are lost"),
        ],
    ),
    (
        "swarm join",
        &[
            (
                "midge swarm join --token SWMTKN-1-TOKEN 192.168.1.10:2377",
                "with the token that join-token shows",
            ),
            (
                "midge swarm join --token SWMTKN-1-TOKEN m1.example.lan:2377 m2.example.lan:2377",
                "by names, which outlive addresses; the first manager that answers admits the node",
            ),
        ],
    ),
    (
        "swarm join-token",
        &[
            ("midge swarm join-token worker", "show the command that joins a worker"),
            ("midge swarm join-token -q manager", "print the token alone, for a script"),
            ("midge swarm join-token --rotate worker", "make the old token worthless"),
        ],
    ),
    (
        "swarm leave",
        &[
            ("midge swarm leave", "take a worker out"),
            ("midge swarm leave --force", "take the last manager out, which ends the cluster"),
        ],
    ),
    (
        "swarm update",
        &[
            ("midge swarm update --task-history-limit 2", "keep less history"),
            ("midge swarm update --dispatcher-heartbeat 10s", "for slow links"),
            ("midge swarm update --autolock", "need a key whenever a manager is restarted"),
        ],
    ),
    ("swarm unlock", &[("midge swarm unlock", "after a restart of a manager that locks itself")]),
    (
        "swarm unlock-key",
        &[
            ("midge swarm unlock-key", "show the key"),
            ("midge swarm unlock-key --rotate -q", "replace it, and print the new one alone"),
        ],
    ),
    (
        "swarm ca",
        &[
            ("midge swarm ca", "print the certificate that all nodes trust"),
            (
                "midge swarm ca --rotate",
                "replace it, and wait until all nodes that are there follow",
            ),
        ],
    ),
    (
        "cluster backup",
        &[
            ("midge cluster backup /mnt/usb/cluster.backup", "asks for a passphrase"),
            ("midge cluster backup --passphrase-file /root/phrase cluster.backup", "from a timer"),
        ],
    ),
    (
        "cluster restore",
        &[
            ("midge cluster restore cluster.backup", "on a machine with the manager's address"),
            (
                "midge cluster restore --advertise-addr 10.0.0.9 cluster.backup",
                "on one with another address",
            ),
        ],
    ),
    (
        "node ls",
        &[
            ("midge node ls", ""),
            ("midge node ls --filter role=worker -q", "the ids of the workers"),
            ("midge node ls --format '{{.Hostname}} {{.Status}}'", "what to print is up to you"),
        ],
    ),
    (
        "node inspect",
        &[
            ("midge node inspect --pretty self", "this node, for people"),
            ("midge node inspect --format '{{json .Spec.Labels}}' pi3", "its labels as JSON"),
        ],
    ),
    (
        "node ps",
        &[
            ("midge node ps", "the tasks of this node"),
            ("midge node ps --filter desired-state=running pi3", "what should run on pi3"),
        ],
    ),
    (
        "node update",
        &[
            ("midge node update --availability drain pi3", "move its tasks elsewhere"),
            (
                "midge node update --availability drain --wait --timeout 5m pi3",
                "and wait until they are there",
            ),
            ("midge node update --label-add zone=a pi3", "for --constraint node.labels.zone==a"),
        ],
    ),
    (
        "node promote",
        &[("midge node promote pi3 pi4", "three managers outlive the loss of any one of them")],
    ),
    ("node demote", &[("midge node demote pi4", "before it is taken away")]),
    (
        "node rm",
        &[
            ("midge node rm pi3", "forget a node that is down"),
            ("midge node rm --force pi3", "also one that is in touch"),
        ],
    ),
    (
        "service create",
        &[
            ("midge service create --name web --replicas 3 nginx:1.27", "three tasks"),
            (
                "midge service create --name web --publish mode=host,target=80,published=8080 nginx",
                "reachable on port 8080 of its node",
            ),
            (
                "midge service create --name agent --mode global --mount \
                 type=bind,src=/sys,dst=/host/sys,ro example/agent",
                "one on every node",
            ),
            (
                "midge service create --name db --constraint node.labels.disk==ssd --mount \
                 type=volume,src=db,dst=/var/lib/postgresql postgres",
                "with its data, on a node that has the disk",
            ),
            (
                "midge service create --name edge --mode global --update-progress-deadline 2h \
                 --update-failure-action continue example/edge",
                "for nodes behind slow links, which take their time for a new image",
            ),
        ],
    ),
    (
        "service ls",
        &[
            ("midge service ls", ""),
            (
                "midge service ls --filter name=web --filter mode=replicated",
                "filters all have to fit",
            ),
            ("midge service ls --format 'table {{.Name}}\\t{{.Replicas}}'", "columns of your own"),
        ],
    ),
    (
        "service ps",
        &[
            ("midge service ps web", "its tasks, with what they were before"),
            ("midge service ps --no-trunc --filter desired-state=running web", "errors in full"),
        ],
    ),
    (
        "service inspect",
        &[
            ("midge service inspect --pretty web", "for people"),
            (
                "midge service inspect --format '{{.Spec.TaskTemplate.ContainerSpec.Image}}' web",
                "its image",
            ),
            (
                "midge service inspect --format '{{range .Spec.EndpointSpec.Ports}}\
                 {{.PublishedPort}} {{end}}' web",
                "its ports",
            ),
        ],
    ),
    (
        "service logs",
        &[
            (
                "midge service logs --follow --tail 20 web",
                "the last lines of each task, and what comes",
            ),
            ("midge service logs --since 10m --timestamps web", "the last ten minutes"),
            ("midge service logs --raw web.2", "one task, exactly what it printed"),
        ],
    ),
    ("service why", &[("midge service why web", "what its update waits for, and until when")]),
    (
        "task inspect",
        &[("midge task inspect --format '{{.Status.Err}}' web.1", "its error, in full")],
    ),
    ("task why", &[("midge task why web.1", "why it waits: what each filter says of which nodes")]),
    (
        "service update",
        &[
            ("midge service update --image nginx:1.28 web", "replace its tasks one by one"),
            ("midge service update --env-add LEVEL=debug --detach web", "without waiting"),
            ("midge service update --force web", "replace its tasks though nothing changed"),
            (
                "midge service update --image nginx:1.28 --dry-run web",
                "what would be replaced, and where; nothing is",
            ),
            (
                "midge service update --image nginx:1.28 --update-order start-first \
                 --update-failure-action rollback web",
                "without a gap, and back where a new task fails",
            ),
            (
                "midge service update --update-parallelism 2 --update-delay 30s \
                 --update-max-failure-ratio 0.1 web",
                "from now on two at a time, and one of ten may fail",
            ),
        ],
    ),
    ("service scale", &[("midge service scale web=5 api=2", "")]),
    (
        "service rollback",
        &[
            ("midge service rollback web", "undo the last update"),
            ("midge service rollback --detach web", "without waiting"),
        ],
    ),
    ("service rm", &[("midge service rm web api", "")]),
    (
        "image ls",
        &[
            ("midge image ls", "the images of this node"),
            ("midge image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' nginx", ""),
        ],
    ),
    ("image pull", &[("midge image pull nginx:1.27", "")]),
    (
        "image load",
        &[
            ("midge image load --input app.tar", "to this node"),
            ("midge image load --nodes all --input app.tar", "to every node, without a registry"),
        ],
    ),
    (
        "image inspect",
        &[("midge image inspect --format '{{.Architecture}}/{{.Variant}}' nginx:1.27", "")],
    ),
    ("image rm", &[("midge image rm nginx:1.27", "")]),
    (
        "image prune",
        &[
            ("midge image prune", "what no tag names"),
            ("midge image prune --all --force --nodes all", "everything unused, on every node"),
        ],
    ),
    (
        "volume create",
        &[
            ("midge volume create data", "on this node"),
            (
                "midge volume create --opt type=nfs --opt o=addr=10.0.0.5 --opt device=:/srv share",
                "a share of another machine, mounted when a task needs it",
            ),
        ],
    ),
    ("volume inspect", &[("midge volume inspect data", "")]),
    ("volume ls", &[("midge volume ls --nodes all", "the volumes of every node")]),
    ("volume prune", &[("midge volume prune --force", "without asking")]),
    ("volume rm", &[("midge volume rm data", "")]),
    ("system df", &[("midge system df --nodes all -v", "what takes the disk, on every node")]),
    (
        "events",
        &[
            ("midge events", "until it is interrupted"),
            ("midge events --since 1h --filter type=service", "the last hour's, then what comes"),
        ],
    ),
    (
        "login",
        &[
            ("midge login -u fleet registry.lan:5000", "the terminal asks for the password"),
            (
                "midge login -u fleet --password-stdin registry.lan:5000",
                "for a script, with the password on standard input",
            ),
        ],
    ),
    ("logout", &[("midge logout registry.lan:5000", "")]),
    (
        "exec",
        &[
            ("midge exec -it web.1 sh", "a shell in a task, on whichever node it runs"),
            ("midge exec web.1 cat /etc/hostname", ""),
        ],
    ),
    (
        "cp",
        &[
            ("midge cp web.1:/var/log/app.log .", "from a task"),
            ("midge cp app.conf web.1:/etc/app/", "into a task"),
        ],
    ),
    (
        "stats",
        &[
            ("midge stats", "of all running tasks"),
            ("midge stats --no-stream web.1", "one task, once"),
        ],
    ),
    ("top", &[("midge top web.1", "")]),
    (
        "kill",
        &[
            ("midge kill -s HUP web.1", "have it read its configuration again"),
            ("midge kill --signal SIGRTMIN+3 web.1 web.2", ""),
            ("midge kill web.1", "end it at once"),
        ],
    ),
    (
        "stop",
        &[
            ("midge stop web.1", "with the signal and grace period of its service"),
            ("midge stop -t 60 -s QUIT web.1 web.2", "both at once, with a minute for each"),
        ],
    ),
    ("restart", &[("midge restart web.1", "its successor has the same name")]),
    ("wait", &[("midge wait import.1", "until a job is done")]),
    (
        "ps",
        &[
            ("midge ps", "the containers of this node"),
            ("midge ps --all --format '{{.Names}}: {{.Status}}'", "also those that ended"),
        ],
    ),
    (
        "info",
        &[
            ("midge info", ""),
            ("midge info --format '{{.Swarm.LocalNodeState}}'", "whether it is in a cluster"),
        ],
    ),
    (
        "doctor",
        &[
            ("midge doctor", "before midge is installed, and after; as root it sees more"),
            ("midge doctor --quiet", "only what is not ok"),
            ("midge doctor --quiet --format '{{.Level}} {{.Name}}: {{.Mend}}'", "for a script"),
        ],
    ),
    ("version", &[("midge version", ""), ("midge version --format '{{.Server.Version}}'", "")]),
    (
        "completion",
        &[
            ("midge completion bash", "source <(midge completion bash) in ~/.bashrc uses it"),
            ("midge completion zsh", ""),
            ("midge completion fish", "into ~/.config/fish/completions/midge.fish"),
        ],
    ),
    (
        "man",
        &[
            ("midge man service create", "midge man service create | man -l - shows it"),
            ("midge man --dir /usr/local/share/man/man1", "the pages of all commands"),
        ],
    ),
];

/// Returns the examples of a command as its help shows them.
pub(super) fn of(path: &str) -> Option<String> {
    let (_, examples) = EXAMPLES.iter().find(|(known, _)| *known == path)?;
    let mut text = String::from("Examples:");
    for (line, what) in *examples {
        if what.is_empty() {
            text.push_str(&format!("\n  {line}"));
        } else {
            text.push_str(&format!("\n  # {what}\n  {line}"));
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::definition;

    fn words(line: &str) -> Vec<String> {
        let (mut words, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words
    }

    #[test]
    fn every_example_is_a_command_line() {
        for (path, examples) in EXAMPLES {
            for (line, _) in *examples {
                assert!(line.starts_with(&format!("midge {path}")), "{line}");
                if let Err(error) = definition::command().try_get_matches_from(words(line)) {
                    panic!("{line}: {error}");
                }
            }
        }
    }

    #[test]
    fn every_command_has_an_example() {
        fn leaves(command: &clap::Command, path: &str, found: &mut Vec<String>) {
            for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
                let path = format!("{path} {}", inner.get_name()).trim().to_owned();
                if !inner.has_subcommands() && inner.get_after_help().is_none() {
                    found.push(path.clone());
                }
                leaves(inner, &path, found);
            }
        }
        let mut without = Vec::new();
        leaves(&definition::command(), "", &mut without);
        assert_eq!(without, [""; 0], "these commands have no line in EXAMPLES");
    }
}
