use super::fake::Server;
use std::process::{Command, Stdio};

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
    let steps: [(&[&str], &str); 22] = [
        (&["version"], "API version:      1.47"),
        (&["info"], "ClusterID:"),
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
                "mode=host,target=80,published=8080",
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
        (&["service", "create", "--update-delay", "1s", "bb:1"], "\"--update-delay\""),
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
