//! The OCI description of an exec'd process, derived from its container's own.
//!
//! Pure: what had to be read from the container comes in as arguments.

use crate::{
    runtime::spec::{user::User, variables},
    types::{ExecSpec, TerminalSize, capabilities_in},
};
use serde_json::{Value, json};

/// What a process is made from besides its own wishes.
#[derive(Debug)]
pub(super) struct Input<'a> {
    /// The container's OCI specification, as JSON.
    pub(super) container: &'a [u8],
    /// What the process wants.
    pub(super) exec: &'a ExecSpec,
    /// Who it runs as; none is the container's user.
    pub(super) user: Option<User>,
    /// The capabilities that the node can give, a bit each.
    pub(super) bounding: u64,
    /// How large its terminal is at first.
    pub(super) size: Option<TerminalSize>,
}

/// Returns the description, as JSON; none where the container's own cannot be read.
pub(super) fn build(input: &Input<'_>) -> Option<Vec<u8>> {
    let mut spec: Value = serde_json::from_slice(input.container).ok()?;
    let mut process = spec.get_mut("process")?.take();
    let exec = input.exec;
    process["args"] = json!(exec.command);
    process["terminal"] = json!(exec.tty);
    process["env"] = json!(environment(&process["env"], exec));
    if !exec.dir.is_empty() {
        process["cwd"] = json!(exec.dir);
    }
    if let Some(user) = &input.user {
        process["user"] =
            json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.groups });
        if user.uid != 0
            && let Some(sets) = process["capabilities"].as_object_mut()
        {
            // As the kernel does it when a program is started by a user that is not root.
            sets.remove("effective");
            sets.remove("permitted");
        }
    }
    if exec.privileged {
        let all: Vec<&str> = capabilities_in(input.bounding).collect();
        process["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
    }
    if let Some(size) = input.size.filter(|size| exec.tty && size.width > 0 && size.height > 0) {
        process["consoleSize"] = json!({ "width": size.width, "height": size.height });
    }
    serde_json::to_vec(&process).ok()
}

/// Returns the user and group that the container runs as; root where it does not say.
pub(super) fn user(container: &[u8]) -> (u32, u32) {
    let spec: Value = serde_json::from_slice(container).unwrap_or_default();
    let id = |name: &str| spec["process"]["user"][name].as_u64().unwrap_or_default();
    let id = |name: &str| u32::try_from(id(name)).unwrap_or_default();
    (id("uid"), id("gid"))
}

/// The container's variables with the process's own over them.
fn environment(container: &Value, exec: &ExecSpec) -> Vec<String> {
    let own = container.as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut env: Vec<String> = own.map(str::to_owned).collect();
    if exec.tty && !env.iter().any(|variable| variables::name(variable) == "TERM") {
        env.push("TERM=xterm".to_owned());
    }
    variables::merge(&mut env, &exec.env);
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(exec: ExecSpec, user: Option<User>, expected: &Expect) {
        let container = json!({"process": {
            "args": ["/sbin/docker-init", "sh"], "terminal": false, "cwd": "/srv",
            "env": ["PATH=/bin", "A=1"], "noNewPrivileges": true, "oomScoreAdj": 7,
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"],
                             "permitted": ["CAP_KILL"]},
        }});
        let built = build(&Input {
            container: container.to_string().as_bytes(),
            exec: &exec,
            user,
            bounding: 0b10_0001,
            size: Some(TerminalSize { width: 80, height: 25 }),
        });
        let value: Value = serde_json::from_slice(&built.unwrap()).unwrap();
        expected.assert_eq(&value.to_string());
    }

    fn exec(command: &str) -> ExecSpec {
        ExecSpec { command: vec![command.to_owned()], ..ExecSpec::default() }
    }

    #[test]
    fn a_process_is_as_its_container_is() {
        check(
            exec("ls"),
            None,
            &expect![[
                r#"{"args":["ls"],"capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]},"cwd":"/srv","env":["PATH=/bin","A=1"],"noNewPrivileges":true,"oomScoreAdj":7,"terminal":false,"user":{"additionalGids":[0],"gid":0,"uid":0}}"#
            ]],
        );
    }

    #[test]
    fn its_own_wishes_come_first() {
        let spec = ExecSpec {
            env: vec!["A=2".into(), "B=3".into(), "PATH".into(), "NONE".into()],
            dir: "/x".into(),
            privileged: true,
            tty: true,
            ..exec("sh")
        };
        check(
            spec,
            Some(User { uid: 0, gid: 5, groups: vec![5] }),
            &expect![[
                r#"{"args":["sh"],"capabilities":{"bounding":["CAP_CHOWN","CAP_KILL"],"effective":["CAP_CHOWN","CAP_KILL"],"permitted":["CAP_CHOWN","CAP_KILL"]},"consoleSize":{"height":25,"width":80},"cwd":"/x","env":["A=2","TERM=xterm","B=3"],"noNewPrivileges":true,"oomScoreAdj":7,"terminal":true,"user":{"additionalGids":[5],"gid":5,"uid":0}}"#
            ]],
        );
    }

    #[test]
    fn who_is_not_root_begins_without_capabilities() {
        check(
            exec("id"),
            Some(User { uid: 33, gid: 33, groups: vec![33] }),
            &expect![[
                r#"{"args":["id"],"capabilities":{"bounding":["CAP_KILL"]},"cwd":"/srv","env":["PATH=/bin","A=1"],"noNewPrivileges":true,"oomScoreAdj":7,"terminal":false,"user":{"additionalGids":[33],"gid":33,"uid":33}}"#
            ]],
        );
    }
}
