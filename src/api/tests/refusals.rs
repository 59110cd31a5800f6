use crate::{
    api::{convert::service, dto},
    cluster::{Class, validate},
    types::ServiceSpec,
};
use serde_json::{Value, json};

/// The least spec, with one value put at `path`.
fn with(path: &str, value: Value) -> dto::ServiceSpec {
    let mut spec = json!({"TaskTemplate": {"ContainerSpec": {"Image": "bb:1"}}});
    let mut at = &mut spec;
    for part in path.split('.') {
        at = &mut at[part];
    }
    *at = value;
    serde_json::from_value(spec).unwrap()
}

#[test]
fn each_unsupported_option_is_refused_by_name() {
    let container = "TaskTemplate.ContainerSpec";
    for (path, value, name) in [
        ("Secrets", json!([{}]), "--secret"),
        ("Configs", json!([{}]), "--config"),
        ("Privileges", json!({"CredentialSpec": {"File": "x"}}), "--credential-spec"),
        ("Privileges", json!({"SELinuxContext": {"Disable": true}}), "SELinux"),
        ("SecurityOpt", json!(["label=disable"]), "--security-opt label"),
        ("OpenStdin", json!(true), "OpenStdin"),
        (
            "Mounts",
            json!([{"Source": "a", "Target": "/b",
                    "VolumeOptions": {"DriverConfig": {"Name": "nfs"}}}]),
            "volume-driver",
        ),
        (
            "Mounts",
            json!([{"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"Options": [["exec"]]}}]),
            "TmpfsOptions.Options",
        ),
        ("Mounts", json!([{"Type": "image", "Source": "a", "Target": "/b"}]), "type=image"),
        ("Mounts", json!([{"Type": "npipe", "Target": "/b"}]), "type=npipe"),
    ] {
        check(&format!("{container}.{path}"), value, name);
    }
    for (path, value, name) in [
        ("TaskTemplate.PluginSpec", json!({"Name": "a"}), "PluginSpec"),
        ("TaskTemplate.NetworkAttachmentSpec", json!({"ContainerID": "a"}), "attachment"),
        ("TaskTemplate.Runtime", json!("plugin"), "Runtime"),
        ("TaskTemplate.Resources.Limits", json!({"GenericResources": [{}]}), "--generic-resource"),
        ("TaskTemplate.Networks", json!([{"Target": "x"}]), "overlay"),
        ("TaskTemplate.Networks", json!([{"Target": "host"}, {"Target": "none"}]), "--network"),
        ("TaskTemplate.Networks", json!([{"Target": "host", "Aliases": ["a"]}]), "alias="),
        ("EndpointSpec", json!({"Ports": [{"TargetPort": 80}]}), "mode=host"),
        (
            "EndpointSpec",
            json!({"Ports": [{"TargetPort": 80, "PublishMode": "host", "Protocol": "sctp"}]}),
            "sctp",
        ),
    ] {
        check(path, value, name);
    }
}

fn check(path: &str, value: Value, name: &str) {
    let refusal = service::to_spec(&with(path, value.clone()), None).expect_err(path);
    assert_eq!(refusal.class, Class::Unsupported, "{path} {value}");
    assert!(refusal.message.contains(name), "{path} {value}: {}", refusal.message);
    assert!(refusal.message.contains("not supported yet"), "{}", refusal.message);
}

#[test]
fn what_says_nothing_is_taken() {
    for (path, value) in [
        ("TaskTemplate.ContainerSpec.Healthcheck", Value::Null),
        ("TaskTemplate.ContainerSpec.DNSConfig", json!({"Nameservers": []})),
        (
            "TaskTemplate.ContainerSpec.Privileges",
            json!({"CredentialSpec": null, "SELinuxContext": {}}),
        ),
        ("TaskTemplate.ContainerSpec.Isolation", json!("default")),
        ("TaskTemplate.ContainerSpec.Mounts", Value::Null),
        ("TaskTemplate.LogDriver", json!({})),
        ("TaskTemplate.Placement", Value::Null),
        ("Mode", Value::Null),
        ("UpdateConfig", Value::Null),
        ("EndpointSpec", json!({"Mode": "dnsrr"})),
    ] {
        service::to_spec(&with(path, value), None).expect(path);
    }
}

#[test]
fn wrong_values_are_refused() {
    for (path, value, message) in [
        ("TaskTemplate.ContainerSpec.Image", json!(""), "image reference must be provided"),
        ("TaskTemplate.ContainerSpec.Image", json!("A b"), "is not a valid repository/tag"),
        (
            "TaskTemplate.RestartPolicy",
            json!({"Condition": "foo"}),
            "invalid RestartCondition: \"foo\"",
        ),
        ("TaskTemplate.RestartPolicy", json!({"Delay": -1}), "restart-delay cannot be negative"),
        ("TaskTemplate.ContainerSpec.StopGracePeriod", json!(-1), "cannot be negative"),
        (
            "UpdateConfig",
            json!({"Delay": -5_000_000_000_i64}),
            "TaskSpec: update-delay cannot be negative",
        ),
        ("RollbackConfig", json!({"Monitor": -1}), "TaskSpec: rollback-monitor cannot be negative"),
        (
            "UpdateConfig",
            json!({"ProgressDeadline": -1}),
            "TaskSpec: update-progress-deadline cannot be negative",
        ),
        ("UpdateConfig", json!({"FailureAction": "foo"}), "unrecognized update failure action foo"),
        ("RollbackConfig", json!({"Order": "foo"}), "unrecognized rollback order foo"),
        (
            "UpdateConfig",
            json!({"MaxFailureRatio": 2}),
            "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (
            "TaskTemplate.Resources.Limits",
            json!({"MemoryBytes": 1}),
            "invalid memory value 1: Must be at least 4MiB",
        ),
        (
            "TaskTemplate.Resources.Limits",
            json!({"NanoCPUs": -1_000_000_000}),
            "invalid cpu value -1: Must be at least 0.001",
        ),
        ("TaskTemplate.Placement.Constraints", json!(["a=b"]), "expected one operator"),
        (
            "TaskTemplate.ContainerSpec.Mounts",
            json!([{"Type": "nope", "Target": "/a"}]),
            "invalid MountType: \"nope\"",
        ),
        (
            "TaskTemplate.ContainerSpec.Mounts",
            json!([{"Type": "bind", "Source": "/a", "Target": "/b",
                    "BindOptions": {"Propagation": "foo"}}]),
            "invalid MountPropagation: \"foo\"",
        ),
        (
            "TaskTemplate.ContainerSpec.Mounts",
            json!([{"Type": "tmpfs", "Source": "a", "Target": "/a"}]),
            "invalid tmpfs source, source must be empty",
        ),
        (
            "TaskTemplate.ContainerSpec.Mounts",
            json!([{"Type": "tmpfs", "Target": "/a", "VolumeOptions": {"NoCopy": true}}]),
            "cannot mix 'volume-*' options with mount type 'tmpfs'",
        ),
    ] {
        wrong(path, value, message);
    }
}

#[test]
fn wrong_options_of_containers_are_refused() {
    for (path, value, message) in [
        (
            "TaskTemplate.ContainerSpec.Isolation",
            json!("hyperv"),
            "invalid isolation (hyperv): linux only supports 'default'",
        ),
        (
            "TaskTemplate.ContainerSpec.Healthcheck",
            json!({"Interval": 999}),
            "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
        ),
        (
            "TaskTemplate.ContainerSpec.Healthcheck",
            json!({"Timeout": -1}),
            "ContainerSpec: Timeout in HealthConfig cannot be less than 1ms",
        ),
        (
            "TaskTemplate.ContainerSpec.Healthcheck",
            json!({"Retries": -1}),
            "ContainerSpec: Retries in HealthConfig cannot be negative",
        ),
        (
            "TaskTemplate.ContainerSpec.Healthcheck",
            json!({"Test": ["WHAT"]}),
            "must be NONE, CMD with a program, or CMD-SHELL",
        ),
        (
            "TaskTemplate.ContainerSpec.OomScoreAdj",
            json!(9_999_999_999_i64),
            "range for oom score adj is [-1000, 1000]",
        ),
        (
            "TaskTemplate.ContainerSpec.Privileges",
            json!({"Seccomp": {"Mode": "foo"}}),
            "unknown seccomp mode: \"foo\"",
        ),
        (
            "TaskTemplate.ContainerSpec.Privileges",
            json!({"Seccomp": {"Mode": "custom", "Profile": "e30x"}}),
            "invalid seccomp profile",
        ),
        (
            "TaskTemplate.ContainerSpec.SecurityOpt",
            json!(["foo"]),
            "invalid --security-opt: \"foo\"",
        ),
        ("TaskTemplate.ContainerSpec.PidMode", json!("container:a"), "invalid PID mode"),
        ("TaskTemplate.ContainerSpec.ShmSize", json!(-1), "SHM size can not be less than 0"),
        ("TaskTemplate.ContainerSpec.Devices", json!([{}]), "either PathOnHost or CDI"),
    ] {
        wrong(path, value, message);
    }
}

#[test]
fn wrong_resources_and_ports_are_refused() {
    for (path, value, message) in [
        (
            "TaskTemplate.Resources",
            json!({"SwapBytes": 5}),
            "You should always set the Memory limit when using Memoryswap limit",
        ),
        (
            "TaskTemplate.Resources",
            json!({"MemorySwappiness": 101}),
            "Invalid value: 101, valid memory swappiness range is 0-100",
        ),
        (
            "EndpointSpec",
            json!({"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]}),
            "port published with ingress mode can't be used with dnsrr mode",
        ),
        (
            "EndpointSpec.Ports",
            json!([{"TargetPort": 80, "PublishMode": "host", "HostIP": "x"}]),
            "invalid IP address: x",
        ),
        ("EndpointSpec.Mode", json!("foo"), "invalid resolution mode: \"foo\""),
        (
            "EndpointSpec.Ports",
            json!([{"TargetPort": 70_000, "PublishMode": "host"}]),
            "invalid port number 70000",
        ),
    ] {
        wrong(path, value, message);
    }
}

fn wrong(path: &str, value: Value, message: &str) {
    // As the leader judges what can be told of it at all.
    let judged = service::to_spec(&with(path, value), None)
        .and_then(|spec| validate::service_spec(&ServiceSpec { name: "web".to_owned(), ..spec }));
    let refusal = judged.expect_err(path);
    assert_eq!(refusal.class, Class::Invalid, "{path}");
    assert!(refusal.message.contains(message), "{path}: {}", refusal.message);
}
