use super::fake::Server;
use crate::types::{
    Device, FailureAction, HealthTest, NamespaceMode, Ratio, UpdateConfig, UpdateOrder,
};
use std::{
    process::{Command, Stdio},
    time::Duration,
};

/// Runs `docker` against the server.
fn docker(server: &Server, arguments: &[&str]) -> (bool, String) {
    let config = server.path.parent().unwrap();
    let output = Command::new("docker")
        .arg("-H")
        .arg(format!("unix://{}", server.path.display()))
        .args(arguments)
        .env("DOCKER_CONFIG", config)
        .env_remove("DOCKER_HOST")
        .env_remove("DOCKER_API_VERSION")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_docker_command_works() {
    if Command::new("docker").arg("--version").output().is_err() {
        eprintln!("skipped: docker is not installed");
        return;
    }
    let server = Server::start();
    let id = server.node.nodes[0].id.to_string();
    let steps: [(&[&str], &str); 23] = [
        (&["version"], "API version:      1.47"),
        (&["info"], "ClusterID:"),
        (&["info"], "mirror.local:5000"),
        (&["node", "ls"], "Leader"),
        (&["node", "inspect", "--pretty", "self"], "Hostname:"),
        (&["swarm", "join-token", "worker"], "SWMTKN-1-worker 10.0.0.1:2377"),
        (&["swarm", "init"], "Swarm initialized: current node"),
        (
            &[
                "service",
                "create",
                "--detach",
                "--name",
                "web",
                "--network",
                "host",
                "-e",
                "A=1",
                "--publish",
                "mode=host,target=80,published=80",
                "bb:1",
                "httpd",
            ],
            "could not be accessed on a registry",
        ),
        (&["service", "ls"], "1/1"),
        (&["service", "ps", "web"], "web.1"),
        (&["service", "inspect", "--pretty", "web"], "UpdateConfig:"),
        (&["service", "scale", "--detach", "web=5"], "web scaled to 5"),
        (&["service", "update", "--detach", "--env-add", "B=2", "web"], "web"),
        (&["service", "logs", "web"], "hello"),
        (&["node", "ps", "m1"], "web.1"),
        (&["node", "update", "--availability", "drain", "m1"], "m1"),
        (&["network", "ls"], "bridge"),
        (&["ps"], "CONTAINER ID"),
        (&["service", "create", "--credential-spec", "file://x", "bb:1"], "\"--credential-spec\""),
        (&["service", "rm", "web"], "web"),
        // With its progress, which polls and then watches for five seconds.
        (&["service", "create", "--name", "slow", "bb:1"], "converged"),
        (&["service", "rm", "slow"], "slow"),
        (&["service", "inspect", "web"], "no such service: web"),
    ];
    for (arguments, expected) in steps {
        let (_, text) = docker(&server, arguments);
        assert!(text.contains(expected), "docker {arguments:?} said:\n{text}");
    }
    assert!(docker(&server, &["info"]).1.contains(&id));
    let services = server.node.services.lock().unwrap();
    assert!(services.is_empty());
}

/// Every option that Docker's client of today has and that needs nothing else of the cluster.
const OPTIONS: &[&str] = &[
    "--cap-add=NET_ADMIN",
    "--cap-drop=chown",
    "--dns=10.0.0.53",
    "--dns-option=ndots:2",
    "--dns-search=example.com",
    "--endpoint-mode=dnsrr",
    "--group=audio",
    "--health-cmd=true",
    "--health-interval=7s",
    "--health-retries=2",
    "--health-start-interval=1s",
    "--health-start-period=8s",
    "--health-timeout=3s",
    "--host=db:10.0.0.9",
    "--hostname={{.Service.Name}}-{{.Task.Slot}}",
    "--isolation=default",
    "--limit-memory=64m",
    "--log-driver=json-file",
    "--log-opt=max-size=1m",
    "--mount=type=volume,src=data,dst=/data,volume-nocopy,volume-label=a=b,volume-driver=local,\
     volume-subpath=x",
    "--mount=type=bind,src=/etc,dst=/e,ro,bind-recursive=readonly,bind-propagation=rprivate",
    "--mount=type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700",
    "--oom-score-adj=-500",
    "--publish=mode=host,target=80,published=8080",
    "--rollback-delay=3s",
    "--rollback-failure-action=continue",
    "--rollback-max-failure-ratio=0.75",
    "--rollback-monitor=4s",
    "--rollback-order=start-first",
    "--rollback-parallelism=0",
    "--sysctl=net.core.somaxconn=64",
    "--ulimit=nofile=64:128",
    "--update-delay=1s",
    "--update-failure-action=rollback",
    "--update-max-failure-ratio=0.2",
    "--update-monitor=2s",
    "--update-order=start-first",
    "--update-parallelism=2",
];

/// Options that take some of these back.
const CHANGES: &[&str] = &[
    "--cap-add=chown",
    "--cap-drop=net_admin",
    "--no-healthcheck",
    "--host-rm=db",
    "--group-rm=audio",
    "--sysctl-rm=net.core.somaxconn",
    "--ulimit-rm=nofile",
    "--mount-rm=/t",
    "--dns-rm=10.0.0.53",
    "--log-driver=none",
    "--update-parallelism=0",
];

#[test]
fn the_docker_command_sets_every_option_and_loses_none() {
    if Command::new("docker").arg("--version").output().is_err() {
        eprintln!("skipped: docker is not installed");
        return;
    }
    let server = Server::start();
    let create = [&["service", "create", "--detach", "--name", "web"], OPTIONS, &["bb:1"]].concat();
    let (made, text) = docker(&server, &create);
    assert!(made, "{text}");
    let stored = || server.node.services.lock().unwrap()[0].spec.clone();
    crate::cluster::validate::service_spec(&stored()).expect("it breaks no rule");
    let container = stored().task.container;
    assert_eq!(container.capability_add, ["CAP_NET_ADMIN"]);
    assert_eq!(container.health.unwrap().retries, 2);
    assert_eq!((container.mounts.len(), container.oom_score_adj), (3, -500));
    let (update, rollback) = (stored().update, stored().rollback);
    assert_eq!((update.parallelism, rollback.parallelism), (2, 0));
    assert_eq!((update.delay, rollback.delay), (Duration::from_secs(1), Duration::from_secs(3)));
    assert_eq!(update.failure_action, FailureAction::Rollback);
    assert_eq!(Some(update.max_failure_ratio), Ratio::from_fraction(0.2));
    assert_eq!((update.order, rollback.monitor), (UpdateOrder::StartFirst, Duration::from_secs(4)));
    // What only midge has, by its own client.
    let mut spec = stored();
    spec.update.progress_deadline = Duration::from_secs(7);
    spec.rollback.progress_deadline = Duration::ZERO;
    spec.task.container.privileged = true;
    spec.task.container.devices = vec![Device::Cdi { name: "v.com/c=1".into() }];
    spec.task.container.security = vec!["no-new-privileges".into(), "apparmor=mine".into()];
    spec.task.container.pid = NamespaceMode::Host;
    spec.task.limits.memory_swap = Some(80 << 20);
    spec.endpoint.ports[0].host_ip = Some("127.0.0.1".parse().unwrap());
    server.node.services.lock().unwrap()[0].spec = spec.clone();
    let update = ["service", "update", "--detach", "--label-add", "a=b", "web"];
    assert!(docker(&server, &update).0);
    spec.labels.insert("a".into(), "b".into());
    assert_eq!(stored(), spec);
    let (shown, text) = docker(&server, &["service", "inspect", "--pretty", "web"]);
    assert!(shown, "{text}");
    for line in [
        "Max failure ratio: 0.2",
        "Rollback order:    start-first",
        "Healthcheck",
        "nofile",
        "net.core.somaxconn",
        "max-size",
        "NET_ADMIN",
        "dnsrr",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let (changed, text) =
        docker(&server, &[&["service", "update", "--detach"], CHANGES, &["web"]].concat());
    assert!(changed, "{text}");
    let container = stored().task.container;
    assert!(container.capability_add.is_empty() && container.capability_drop.is_empty());
    assert!(container.hosts.is_empty() && container.groups.is_empty());
    assert!(container.sysctls.is_empty() && container.ulimits.is_empty());
    assert_eq!(container.health.unwrap().test, HealthTest::Disabled);
    assert_eq!((container.mounts.len(), container.dns.nameservers.len()), (2, 0));
    assert_eq!(stored().task.log.unwrap().driver, "none");
    assert!(container.privileged && container.devices.len() == 1);
    assert_eq!(stored().update, UpdateConfig { parallelism: 0, ..spec.update });
    assert_eq!(stored().rollback, spec.rollback);
}
