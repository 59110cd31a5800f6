//! `--mount`: what it says, and how an update changes the list.

use super::csv;
use crate::cli::{
    exit::CliError,
    human::{parse_truth, text},
};
use serde_json::{Value, json};
use std::path::Path;

/// Reads `--mount`: `type=volume,src=data,dst=/data,ro`. Texts of refusals are Docker's.
pub(in crate::cli) fn parse_mount(text: &str) -> Result<Value, String> {
    let mut mount = json!({"Type": "volume"});
    for field in csv::fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field.as_str(), None),
        };
        let key = key.to_ascii_lowercase();
        match value {
            Some(value) => set(&mut mount, &key, value, &field)?,
            None => match key.as_str() {
                "readonly" | "ro" => mount["ReadOnly"] = json!(true),
                "volume-nocopy" => mount["VolumeOptions"]["NoCopy"] = json!(true),
                "bind-create-src" => mount["BindOptions"]["CreateMountpoint"] = json!(true),
                "bind-nonrecursive" => mount["BindOptions"]["NonRecursive"] = json!(true),
                _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
            },
        }
    }
    check(&mount)?;
    Ok(mount)
}

fn set(mount: &mut Value, key: &str, value: &str, field: &str) -> Result<(), String> {
    let wrong = || format!("invalid value for {key}: {value}");
    let truth = || parse_truth(value).map(Value::from).map_err(|_| wrong());
    match key {
        "type" => mount["Type"] = json!(value.to_ascii_lowercase()),
        "source" | "src" => mount["Source"] = json!(absolute(value)),
        "target" | "dst" | "destination" => mount["Target"] = json!(value),
        "readonly" | "ro" => mount["ReadOnly"] = truth()?,
        "consistency" => mount["Consistency"] = json!(value.to_ascii_lowercase()),
        "bind-propagation" => {
            mount["BindOptions"]["Propagation"] = json!(value.to_ascii_lowercase());
        }
        "bind-nonrecursive" => mount["BindOptions"]["NonRecursive"] = truth()?,
        "bind-create-src" => mount["BindOptions"]["CreateMountpoint"] = truth()?,
        "bind-recursive" => match value {
            // What happens anyway: recursive, and read-only all the way down where the kernel can.
            "enabled" => {}
            "disabled" => mount["BindOptions"]["NonRecursive"] = json!(true),
            "writable" => mount["BindOptions"]["ReadOnlyNonRecursive"] = json!(true),
            "readonly" => mount["BindOptions"]["ReadOnlyForceRecursive"] = json!(true),
            _ => {
                return Err(format!(
                    "{} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")",
                    wrong()
                ));
            }
        },
        "volume-subpath" => mount["VolumeOptions"]["Subpath"] = json!(value),
        "volume-nocopy" => mount["VolumeOptions"]["NoCopy"] = truth()?,
        "volume-label" => {
            let (key, value) = value.split_once('=').unwrap_or((value, ""));
            mount["VolumeOptions"]["Labels"][key] = json!(value);
        }
        "volume-driver" => mount["VolumeOptions"]["DriverConfig"]["Name"] = json!(value),
        "volume-opt" => {
            let (key, value) = value.split_once('=').unwrap_or((value, ""));
            mount["VolumeOptions"]["DriverConfig"]["Options"][key] = json!(value);
        }
        "tmpfs-size" => {
            let bytes = crate::cli::human::parse_bytes(value).map_err(|_| wrong())?;
            mount["TmpfsOptions"]["SizeBytes"] = json!(bytes);
        }
        "tmpfs-mode" => {
            let mode = u32::from_str_radix(value, 8).map_err(|_| wrong())?;
            mount["TmpfsOptions"]["Mode"] = json!(mode);
        }
        "image-subpath" => return Err("mount type image is not supported yet".to_owned()),
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

/// A path from here, as people write it in scripts, is one of this machine.
fn absolute(source: &str) -> String {
    let relative = source == "." || source.starts_with("./");
    let path = relative.then(|| std::path::absolute(Path::new(source)).ok()).flatten();
    path.map_or_else(|| source.to_owned(), |path| path.display().to_string())
}

fn check(mount: &Value) -> Result<(), String> {
    let kind = text(mount, "/Type");
    match kind {
        "volume" | "bind" | "tmpfs" => {}
        "" => return Err("type is required".to_owned()),
        "npipe" | "cluster" | "image" => {
            return Err(format!("mount type {kind} is not supported yet"));
        }
        _ => return Err(format!("invalid mount type {kind:?}")),
    }
    for (field, prefix) in
        [("VolumeOptions", "volume"), ("BindOptions", "bind"), ("TmpfsOptions", "tmpfs")]
    {
        if !mount[field].is_null() && prefix != kind {
            return Err(format!("cannot mix '{prefix}-*' options with mount type '{kind}'"));
        }
    }
    if text(mount, "/Target").is_empty() {
        return Err("target is required".to_owned());
    }
    let read_only = mount["ReadOnly"] == true;
    let bind = &mount["BindOptions"];
    for (field, value) in
        [("ReadOnlyNonRecursive", "writable"), ("ReadOnlyForceRecursive", "readonly")]
    {
        if bind[field] == true && !read_only {
            return Err(format!(
                "option 'bind-recursive={value}' requires 'readonly' to be specified in conjunction"
            ));
        }
    }
    let propagation = text(bind, "/Propagation");
    if bind["ReadOnlyForceRecursive"] == true && !matches!(propagation, "" | "rprivate") {
        let message = "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be \
                       specified in conjunction";
        return Err(message.to_owned());
    }
    Ok(())
}

/// Returns mounts without those at the targets in `remove` and with those in `add`, which take the
/// place of what is at their targets.
pub(in crate::cli) fn merge_mounts(
    mut mounts: Vec<Value>,
    add: &[Value],
    remove: &[String],
) -> Result<Vec<Value>, CliError> {
    let target = |mount: &Value| text(mount, "/Target").to_owned();
    for (index, mount) in add.iter().enumerate() {
        if add[..index].iter().any(|other| target(other) == target(mount)) {
            return Err(CliError::usage(format!("duplicate mount target {}", target(mount))));
        }
    }
    mounts.retain(|mount| !remove.contains(&target(mount)));
    for mount in add {
        match mounts.iter_mut().find(|there| target(there) == target(mount)) {
            Some(there) => there.clone_from(mount),
            None => mounts.push(mount.clone()),
        }
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mounts_read() {
        for (written, expected) in [
            (
                "type=bind,src=/a,dst=/b,ro",
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true}),
            ),
            ("dst=/b", json!({"Type": "volume", "Target": "/b"})),
            (
                "type=BIND,Source=/a,destination=/b,readonly=1,bind-propagation=RPRIVATE,bind-recursive=readonly",
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true,
                       "BindOptions": {"Propagation": "rprivate", "ReadOnlyForceRecursive": true}}),
            ),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=disabled,bind-create-src",
                json!({"Type": "bind", "Source": "/a", "Target": "/b",
                       "BindOptions": {"NonRecursive": true, "CreateMountpoint": true}}),
            ),
            (
                "src=v,dst=/b,volume-nocopy,volume-label=a=b,volume-label=c,volume-driver=local,\
                 volume-opt=type=nfs,\"volume-opt=o=addr=10.0.0.1,rw\",volume-subpath=x/y",
                json!({"Type": "volume", "Source": "v", "Target": "/b", "VolumeOptions": {
                    "NoCopy": true, "Labels": {"a": "b", "c": ""}, "Subpath": "x/y",
                    "DriverConfig": {"Name": "local",
                                     "Options": {"type": "nfs", "o": "addr=10.0.0.1,rw"}}}}),
            ),
            (
                "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770",
                json!({"Type": "tmpfs", "Target": "/t",
                       "TmpfsOptions": {"SizeBytes": 64 << 20, "Mode": 0o1770}}),
            ),
        ] {
            assert_eq!(parse_mount(written), Ok(expected), "{written}");
        }
        let here = parse_mount("type=bind,src=./x,dst=/b").unwrap();
        assert!(text(&here, "/Source").starts_with('/') && text(&here, "/Source").ends_with("/x"));
    }

    #[test]
    fn mounts_are_refused_in_dockers_words() {
        for (written, message) in [
            ("src=v", "target is required"),
            ("nope", "invalid field 'nope' must be a key=value pair"),
            ("type=,dst=/x", "type is required"),
            ("type=nope,dst=/x", "invalid mount type \"nope\""),
            ("type=image,src=a,dst=/x", "mount type image is not supported yet"),
            ("dst=/x,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
            ("dst=/x,ro=maybe", "invalid value for ro: maybe"),
            (
                "dst=/x,bind-propagation=shared",
                "cannot mix 'bind-*' options with mount type 'volume'",
            ),
            (
                "type=bind,src=/a,dst=/x,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'bind'",
            ),
            (
                "type=bind,src=/a,dst=/x,bind-recursive=no",
                "invalid value for bind-recursive: no (must be \"enabled\", \"disabled\", \
                 \"writable\", or \"readonly\")",
            ),
            (
                "type=bind,src=/a,dst=/x,bind-recursive=writable",
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
            ),
            ("type=tmpfs,dst=/x,tmpfs-size=x", "invalid value for tmpfs-size: x"),
            ("type=tmpfs,dst=/x,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
        ] {
            assert_eq!(parse_mount(written), Err(message.to_owned()), "{written}");
        }
    }

    #[test]
    fn an_addition_takes_the_place_at_its_target() {
        let mount = |target: &str, source: &str| json!({"Target": target, "Source": source});
        let old = vec![mount("/a", "1"), mount("/b", "2"), mount("/c", "3")];
        let add = [mount("/b", "4"), mount("/d", "5")];
        let merged = merge_mounts(old, &add, &["/a".to_owned(), "/nope".to_owned()]).unwrap();
        assert_eq!(merged, [mount("/b", "4"), mount("/c", "3"), mount("/d", "5")]);
        assert!(merge_mounts(Vec::new(), &[mount("/b", "1"), mount("/b", "2")], &[]).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(type=|src=|dst=|bind-|tmpfs-mode=|[a-z=,\"0-9./é-]){0,12}") {
            parse_mount(&text).ok();
        }

        #[test]
        fn targets_stay_unique(
            old in proptest::collection::btree_set("/[a-d]", 0..4),
            add in proptest::collection::btree_set("/[a-f]", 0..4),
            remove in proptest::collection::vec("/[a-f]", 0..3),
        ) {
            let mounts = |targets: &std::collections::BTreeSet<String>| -> Vec<Value> {
                targets.iter().map(|target| json!({"Target": target})).collect()
            };
            let merged = merge_mounts(mounts(&old), &mounts(&add), &remove).unwrap();
            let targets: Vec<&str> = merged.iter().map(|mount| text(mount, "/Target")).collect();
            let unique: std::collections::BTreeSet<&str> = targets.iter().copied().collect();
            prop_assert_eq!(unique.len(), targets.len());
            let kept = old.iter().filter(|t| !remove.contains(t)).chain(&add);
            let expected: std::collections::BTreeSet<&str> = kept.map(String::as_str).collect();
            prop_assert_eq!(unique, expected);
        }
    }
}
