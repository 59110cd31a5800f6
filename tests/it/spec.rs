//! A service with many options: set by midge, shown by midge and by docker alike.

use crate::host::{Host, Network, can_run, eventually, which};
use std::process::{Command, Stdio};

/// Options whose container need not run: their tasks have no node.
const OPTIONS: &[&str] = &[
    "--constraint=node.labels.there==nowhere",
    "--cap-add=net_admin",
    "--cap-drop=CHOWN",
    "--device=/dev/null:/dev/zilch:r",
    "--device=vendor.com/class=one",
    "--dns=10.0.0.53",
    "--dns-option=ndots:2",
    "--dns-search=example.com",
    "--endpoint-mode=dnsrr",
    "--group=audio",
    "--health-cmd=true",
    "--health-interval=1m30s",
    "--health-retries=2",
    "--host=db:10.0.0.9",
    "--init",
    "--ipc=host",
    "--limit-memory=64m",
    "--limit-pids=20",
    "--log-driver=json-file",
    "--log-opt=max-size=1m",
    "--memory-swap=16m",
    "--mount=type=volume,src=data-{{.Task.Slot}},dst=/data,volume-nocopy,volume-label=a=b",
    "--mount=type=bind,src=/etc,dst=/e,ro,bind-propagation=rslave",
    "--mount=type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700",
    "--oom-score-adj=-500",
    "--pid=host",
    "--publish=127.0.0.1:8000-8001:80-81",
    "--security-opt=no-new-privileges",
    "--security-opt=apparmor=mine",
    "--shm-size=8m",
    "--sysctl=net.core.somaxconn=64",
    "--ulimit=nofile=64:128",
    "--user=1000",
];

fn docker(host: &Host, args: &[&str]) -> String {
    let output = Command::new(which("docker").expect("looked for before"))
        .args(args)
        .env("DOCKER_HOST", format!("unix://{}/midge.sock", host.dir.display()))
        .stdin(Stdio::null())
        .output()
        .expect("docker starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {error}");
    String::from_utf8(output.stdout).expect("docker prints text")
}

/// The task template, as the API gives it.
fn template(host: &Host, name: &str) -> String {
    host.ok(&["service", "inspect", "-f", "{{json .Spec.TaskTemplate}}", name])
}

#[test]
fn a_service_keeps_every_option_whoever_changes_it() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(1);
    let host = network.manager();
    let create = ["service", "create", "-d", "--no-resolve-image", "--name", "web"];
    host.ok(&[&create[..], OPTIONS, &["bb:1", "sleep", "1000"]].concat());
    let made = template(host, "web");
    for part in [
        r#""CapabilityAdd":["CAP_NET_ADMIN"]"#,
        r#""PathInContainer":"/dev/zilch""#,
        r#""CDI":"vendor.com/class=one""#,
        r#""Interval":90000000000"#,
        r#""Source":"data-{{.Task.Slot}}""#,
        r#""NoNewPrivileges":true"#,
        r#""SecurityOpt":["apparmor=mine"]"#,
        r#""SwapBytes":16777216"#,
        r#""PidMode":"host""#,
    ] {
        assert!(made.contains(part), "{part} in {made}");
    }
    let ports = "{{json .Spec.EndpointSpec.Ports}}";
    let ports = |host: &Host| host.ok(&["service", "inspect", "-f", ports, "web"]);
    assert_eq!(ports(host).matches(r#""HostIP":"127.0.0.1""#).count(), 2);
    let pretty = host.ok(&["service", "inspect", "--pretty", "web"]);
    for line in [
        " Add: CAP_NET_ADMIN",
        " nofile: 64:128",
        " net.core.somaxconn: 64",
        "  max-size:       1m",
        " PublishedPort = 8001",
        "  Interval = 1m30s",
        " /dev/null:/dev/zilch:r",
    ] {
        assert!(pretty.lines().any(|found| found == line), "{line} in\n{pretty}");
    }
    if which("docker").is_none() {
        eprintln!("skipped: the docker command is not installed");
    } else {
        // What docker prints for people, midge prints too.
        let theirs = docker(host, &["service", "inspect", "--pretty", "web"]);
        for line in theirs.lines().filter(|line| !line.trim().is_empty()) {
            // Docker ends the last port in a space, and shows what it takes for defaults.
            let line = line.trim_end();
            let skipped = [
                "Update",
                "Rollback",
                " Parallelism",
                " On failure",
                " Monitoring",
                " Max failure",
                " Rollback",
            ];
            if !skipped.iter().any(|start| line.starts_with(start)) {
                let found = pretty.lines().any(|found| found.trim_end() == line);
                assert!(found, "docker's {line:?} in\n{pretty}\nof\n{theirs}");
            }
        }
        let before = ports(host);
        docker(host, &["service", "update", "-d", "--label-add", "a=b", "web"]);
        assert_eq!((template(host, "web"), ports(host)), (made.clone(), before));
    }
    let update = [
        "service",
        "update",
        "-d",
        "--cap-add=chown",
        "--device-rm=vendor.com/class=one",
        "--pid=private",
        "--security-opt-rm=no-new-privileges",
        "--publish-rm=81",
        "--privileged",
        "--no-healthcheck",
        "--mount-rm=/t",
        "--host-rm=db",
        "--env-add=A={{.Node.ID}}",
        "web",
    ];
    host.ok(&update);
    let changed = template(host, "web");
    for part in [
        r#""Privileged":true"#,
        r#""Test":["NONE"]"#,
        r#""Env":["A={{.Node.ID}}"]"#,
        r#""CapabilityAdd":["CAP_NET_ADMIN"]"#,
        r#""SecurityOpt":["apparmor=mine"]"#,
    ] {
        assert!(changed.contains(part), "{part} in {changed}");
    }
    for gone in ["CHOWN", "CDI", "PidMode", "NoNewPrivileges", "tmpfs", "10.0.0.9"] {
        assert!(!changed.contains(gone), "{gone} in {changed}");
    }
    let refused = host.midge(&["service", "update", "-d", "--hostname={{.Nope}}", "web"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("expanding hostname failed"), "{text}");
    host.ok(&["service", "rm", "web"]);
}

#[test]
fn a_template_becomes_what_it_names() {
    if !can_run() {
        return;
    }
    let network = Network::cluster(1);
    network.load_busybox();
    let host = network.manager();
    let script = "echo $(hostname) $WHO; ls /data-1 >/dev/null && echo end; \
                  while :; do sleep 1; done";
    host.ok(&[
        "service",
        "create",
        "-d",
        "--name",
        "web",
        "--label",
        "zone=north",
        "--hostname",
        "{{.Service.Name}}-{{.Task.Slot}}",
        "--env",
        "WHO={{.Node.Hostname}}/{{index .Service.Labels \"zone\"}}",
        "--mount",
        "type=tmpfs,dst=/data-{{.Task.Slot}}",
        "bb:1",
        "sh",
        "-c",
        script,
    ]);
    let hostname = host.ok(&["node", "inspect", "-f", "{{.Description.Hostname}}", "self"]);
    let text = eventually("web to print", || {
        let output = host.midge(&["service", "logs", "--raw", "web"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("end\n").then_some(text)
    });
    assert_eq!(text, format!("web-1 {}/north\nend\n", hostname.trim()));
    host.ok(&["service", "rm", "web"]);
}
