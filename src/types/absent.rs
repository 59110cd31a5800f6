//! What Docker has and midge has not, and what to do instead: one table for the API, which answers
//! Docker's clients, and for the command line.

/// Something of Docker's that midge has not got.
#[derive(Debug)]
pub struct Absent {
    /// The words of commands, `push` for `docker push` and `docker image push`.
    commands: &'static [&'static str],
    /// Requests of the API: method and path, in which `{}` stands for one segment and `{*}` for one or
    /// more.
    requests: &'static [(&'static str, &'static str)],
    /// What is so, and what to do.
    pub advice: &'static str,
}

/// The table. Of two rows that fit a request the first counts.
static ABSENT: &[Absent] = &[
    Absent {
        commands: &["stack", "compose"],
        requests: &[],
        advice: "midge has no stacks yet: make each service with midge service create \
                 (docs/from-swarm.md shows a stack as a script)",
    },
    Absent {
        commands: &["secret"],
        requests: &[("POST", "secrets/create"), ("POST", "secrets/{}/update")],
        advice: "midge has no secrets yet: keep the file on the nodes, and give it to tasks with \
                 --mount type=bind",
    },
    Absent {
        commands: &["config"],
        requests: &[("POST", "configs/create"), ("POST", "configs/{}/update")],
        advice: "midge has no configs yet: keep the file on the nodes, and give it to tasks with \
                 --mount type=bind, or put it into the image",
    },
    Absent {
        commands: &["network"],
        requests: &[
            ("POST", "networks/create"),
            ("POST", "networks/prune"),
            ("POST", "networks/{}/connect"),
            ("POST", "networks/{}/disconnect"),
            ("DELETE", "networks/{}"),
        ],
        advice: "midge has no networks of one's own yet: a task is in its node's bridge, host or \
                 none, and --publish mode=host makes its ports known",
    },
    Absent {
        commands: &["run", "create", "start"],
        requests: &[("POST", "containers/create"), ("POST", "containers/{}/start")],
        advice: "midge runs services, no single containers: use midge service create, with \
                 --mode replicated-job for what runs once to its end",
    },
    Absent {
        commands: &["rm"],
        requests: &[("DELETE", "containers/{}")],
        advice: "a container goes with its task: midge service update --force SERVICE makes new \
                 ones, midge service scale SERVICE=0 ends them for good",
    },
    Absent {
        commands: &["pause", "unpause", "rename", "attach", "diff", "export", "commit"],
        requests: &[
            ("POST", "containers/{}/pause"),
            ("POST", "containers/{}/unpause"),
            ("POST", "containers/{}/rename"),
            ("POST", "containers/{}/update"),
            ("POST", "containers/{}/attach"),
            ("GET", "containers/{}/attach/ws"),
            ("GET", "containers/{}/changes"),
            ("GET", "containers/{}/export"),
            ("POST", "commit"),
        ],
        advice: "a container belongs to a task of a service, and cannot be changed by itself: use \
                 midge service update, midge service logs, midge exec or midge cp",
    },
    Absent {
        commands: &["container"],
        requests: &[],
        advice: "midge ps lists the containers of this node, midge service ps those of a service",
    },
    Absent {
        commands: &[],
        requests: &[("POST", "containers/prune")],
        advice: "containers are removed with their tasks: midge image prune and midge volume prune \
                 make room on the disk",
    },
    Absent {
        commands: &["build", "buildx", "builder"],
        requests: &[("POST", "build"), ("POST", "build/prune"), ("POST", "session")],
        advice: "midge builds no images: build elsewhere, push to a registry, or bring the image \
                 with docker save IMAGE | midge image load --nodes all",
    },
    Absent {
        commands: &["push", "tag", "save", "history", "import", "search"],
        requests: &[
            ("POST", "images/{*}/push"),
            ("POST", "images/{*}/tag"),
            ("GET", "images/{*}/get"),
            ("GET", "images/get"),
            ("GET", "images/{*}/history"),
            ("GET", "images/search"),
        ],
        advice: "midge brings images to nodes and does not make or publish them: do this where \
                 there is a Docker, a Podman or skopeo",
    },
    Absent {
        commands: &["plugin"],
        requests: &[
            ("GET", "plugins/privileges"),
            ("POST", "plugins/pull"),
            ("POST", "plugins/create"),
            ("POST", "plugins/{*}"),
            ("DELETE", "plugins/{*}"),
        ],
        advice: "midge has no plugins: what it does is in the one program",
    },
];

/// Finds what is known of a command of Docker's by its word.
#[must_use]
pub fn command(word: &str) -> Option<&'static Absent> {
    ABSENT.iter().find(|absent| absent.commands.contains(&word))
}

/// Finds what is known of a request that Docker's clients make. `fits` tells whether a path of the
/// table is that of the request.
#[must_use]
pub fn request(method: &str, fits: impl Fn(&str) -> bool) -> Option<&'static Absent> {
    ABSENT
        .iter()
        .find(|absent| absent.requests.iter().any(|(known, path)| *known == method && fits(path)))
}
