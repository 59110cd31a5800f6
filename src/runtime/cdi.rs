//! Devices that the node's CDI specifications describe: a vendor says in a file what a container
//! needs for a device (device files, libraries, programs to run), and names it `vendor.com/gpu=0`.
//!
//! Knows the format of the Container Device Interface and reads its folders; must not know what
//! the devices are.

mod yaml;

use super::{
    device,
    spec::edits::{DeviceNode, EditMount, Edits},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Where specifications are; one in a later folder replaces a device of an earlier.
pub const CDI_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// The largest specification that is read: a large GPU's has some 50 KiB.
const FILE_MAX: u64 = 4 << 20;

/// How many specifications a folder may hold: one a vendor and class.
const FILES_MAX: usize = 256;

/// A device cannot be given to a container.
#[derive(Debug, thiserror::Error)]
pub(super) enum CdiError {
    /// Not `vendor/class=name`.
    #[error("invalid CDI device name {0:?}: it is written vendor.com/class=name")]
    Name(String),
    /// No specification names it.
    #[error("unresolvable CDI devices {name}: no specification in {folders} names it{passed_over}")]
    Unknown {
        /// The device.
        name: String,
        /// Where it was looked for.
        folders: String,
        /// Which files could not be used, and why.
        passed_over: String,
    },
    /// Two specifications of one folder name it.
    #[error("unresolvable CDI devices {name}: both {} and {} name it", first.display(), second.display())]
    Conflict {
        /// The device.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A device file that the specification names.
    #[error("cannot use the CDI device {name}")]
    Device {
        /// The device.
        name: String,
        /// Why.
        #[source]
        source: device::DeviceError,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    cdi_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Option<ContainerEdits>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: ContainerEdits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerEdits {
    env: Option<Vec<String>>,
    device_nodes: Option<Vec<Node>>,
    hooks: Option<Vec<Hook>>,
    mounts: Option<Vec<Mount>>,
    #[serde(rename = "additionalGids")]
    additional_gids: Option<Vec<u32>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: String,
    #[serde(default)]
    host_path: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    major: i64,
    #[serde(default)]
    minor: i64,
    file_mode: Option<u32>,
    #[serde(default)]
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: String,
    container_path: String,
    options: Option<Vec<String>>,
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    hook_name: String,
    path: String,
    args: Option<Vec<String>>,
    env: Option<Vec<String>>,
    timeout: Option<i64>,
}

/// The node's specifications, as they are now.
#[derive(Debug, Default)]
struct Registry {
    /// By qualified name: the folder's rank, the file, and both its edits.
    devices: BTreeMap<String, Entry>,
    /// What could not be used.
    passed_over: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    rank: usize,
    file: PathBuf,
    common: ContainerEdits,
    own: ContainerEdits,
    /// Another file of the same folder that names it too.
    rival: Option<PathBuf>,
}

/// Returns what the named devices add to a container whose process runs as `uid`.
pub(super) fn resolve(names: &[&str], dirs: &[PathBuf], uid: u32) -> Result<Edits, CdiError> {
    if names.is_empty() {
        return Ok(Edits::default());
    }
    let registry = Registry::read(dirs);
    let mut edits = Edits::default();
    let mut seen: BTreeSet<&Path> = BTreeSet::new();
    for name in names {
        if !is_qualified(name) {
            return Err(CdiError::Name((*name).to_owned()));
        }
        let Some(entry) = registry.devices.get(*name) else {
            let folders: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            let passed_over = match registry.passed_over.as_slice() {
                [] => String::new(),
                some => format!(" ({})", some.join("; ")),
            };
            let (name, folders) = ((*name).to_owned(), folders.join(" or "));
            return Err(CdiError::Unknown { name, folders, passed_over });
        };
        if let Some(second) = &entry.rival {
            let (first, second) = (entry.file.clone(), second.clone());
            return Err(CdiError::Conflict { name: (*name).to_owned(), first, second });
        }
        let named = |source| CdiError::Device { name: (*name).to_owned(), source };
        // What a file says for all its devices is added once, before the first of them.
        if seen.insert(&entry.file) {
            edits.extend(entry.common.resolve(uid).map_err(named)?);
        }
        edits.extend(entry.own.resolve(uid).map_err(named)?);
    }
    Ok(edits)
}

/// Tells whether a name is `vendor/class=name`.
pub(super) fn is_qualified(name: &str) -> bool {
    let Some((kind, device)) = name.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let word = |text: &str, inner: &[u8], first_letter: bool| {
        let ends = |byte: u8| byte.is_ascii_alphanumeric();
        let bytes = text.as_bytes();
        bytes.first().is_some_and(|b| if first_letter { b.is_ascii_alphabetic() } else { ends(*b) })
            && bytes.last().is_some_and(|b| ends(*b))
            && bytes.iter().all(|b| ends(*b) || inner.contains(b))
    };
    word(vendor, b"_-.", true) && word(class, b"_-.", true) && word(device, b"_-.:", false)
}

impl Registry {
    fn read(dirs: &[PathBuf]) -> Self {
        let mut registry = Self::default();
        for (rank, dir) in dirs.iter().enumerate() {
            let mut files: Vec<PathBuf> =
                fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
            files.sort();
            for path in files.into_iter().take(FILES_MAX) {
                let read = match path.extension().and_then(|extension| extension.to_str()) {
                    Some("json") => read_file(&path, |text| {
                        serde_json::from_str(text).map_err(|error| error.to_string())
                    }),
                    Some("yaml" | "yml") => read_file(&path, |text| {
                        let value = yaml::parse(text)?;
                        serde_json::from_value(value).map_err(|error| error.to_string())
                    }),
                    _ => continue,
                };
                match read {
                    Ok(file) => registry.add(rank, &path, file),
                    Err(why) => {
                        registry
                            .passed_over
                            .push(format!("{} is passed over: {why}", path.display()));
                    }
                }
            }
        }
        registry
    }

    fn add(&mut self, rank: usize, path: &Path, file: File) {
        let common = file.container_edits.unwrap_or_default();
        for device in file.devices {
            let name = format!("{}={}", file.kind, device.name);
            match self.devices.get_mut(&name) {
                Some(known) if known.rank == rank => known.rival = Some(path.to_owned()),
                _ => {
                    let entry = Entry {
                        rank,
                        file: path.to_owned(),
                        common: common.clone(),
                        own: device.container_edits,
                        rival: None,
                    };
                    drop(self.devices.insert(name, entry));
                }
            }
        }
    }
}

fn read_file(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<File, String>,
) -> Result<File, String> {
    let text = |path: &Path| -> io::Result<String> {
        let mut text = String::new();
        let read = fs::File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
        if u64::try_from(read).is_ok_and(|read| read > FILE_MAX) {
            return Err(io::Error::other("it is larger than 4 MiB"));
        }
        Ok(text)
    };
    let file = parse(&text(path).map_err(|error| error.to_string())?)?;
    if file.cdi_version.is_empty() || !file.kind.contains('/') {
        return Err("it names no cdiVersion or no kind".to_owned());
    }
    Ok(file)
}

impl ContainerEdits {
    fn resolve(&self, uid: u32) -> Result<Edits, device::DeviceError> {
        let mut edits = Edits {
            env: self.env.clone().unwrap_or_default(),
            groups: self.additional_gids.iter().flatten().copied().filter(|g| *g != 0).collect(),
            ..Edits::default()
        };
        for node in self.device_nodes.iter().flatten() {
            edits.nodes.push(node.resolve(uid)?);
        }
        for mount in self.mounts.iter().flatten() {
            edits.mounts.push(EditMount {
                source: PathBuf::from(&mount.host_path),
                target: mount.container_path.clone(),
                options: mount.options.clone().unwrap_or_default(),
                kind: mount.kind.clone(),
            });
        }
        for hook in self.hooks.iter().flatten() {
            edits.hooks.entry(hook.hook_name.clone()).or_default().push(hook.to_json());
        }
        Ok(edits)
    }
}

impl Node {
    /// What the specification leaves out is as the node's own device file has it.
    fn resolve(&self, uid: u32) -> Result<DeviceNode, device::DeviceError> {
        let source = if self.host_path.is_empty() { &self.path } else { &self.host_path };
        let access = if self.permissions.is_empty() { "rwm" } else { &self.permissions };
        let is_whole = matches!(self.kind.as_str(), "p")
            || (matches!(self.kind.as_str(), "b" | "c" | "u") && self.major != 0);
        let mut node = if is_whole {
            DeviceNode {
                path: self.path.clone(),
                kind: self.kind.chars().next().unwrap_or('c'),
                major: self.major,
                minor: self.minor,
                mode: None,
                uid: None,
                gid: None,
                access: access.to_owned(),
            }
        } else {
            let mut found = device::at(source, self.path.clone(), access)?;
            // Its owner is the node's affair: the container's user is given it below.
            (found.uid, found.gid) = (None, None);
            found
        };
        node.mode = self.file_mode.or(node.mode);
        node.uid = self.uid.or_else(|| (uid > 0).then_some(uid));
        node.gid = self.gid;
        Ok(node)
    }
}

impl Hook {
    fn to_json(&self) -> Value {
        let mut value = json!({ "path": self.path });
        if let Some(args) = &self.args {
            value["args"] = json!(args);
        }
        if let Some(env) = &self.env {
            value["env"] = json!(env);
        }
        if let Some(timeout) = self.timeout {
            value["timeout"] = json!(timeout);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"cdiVersion": "0.6.0", "kind": "acme.com/gpu",
        "containerEdits": {"env": ["ALL=1"],
            "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true", "x"]}]},
        "devices": [
            {"name": "0", "containerEdits": {
                "env": ["GPU=0"],
                "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"},
                                {"path": "/dev/far", "type": "b", "major": 9, "minor": 2}],
                "mounts": [{"hostPath": "/etc/hosts", "containerPath": "/gpu/lib",
                            "options": ["ro", "nosuid"]}],
                "additionalGids": [0, 44]}},
            {"name": "1", "containerEdits": {"env": ["GPU=1"]}}
        ]}"#;

    const YAML: &str = "cdiVersion: 0.5.0\nkind: acme.com/nic\ndevices:\n- name: a\n  \
        containerEdits:\n    deviceNodes:\n    - path: /dev/zero\n    env: [NIC=a]\n";

    fn dirs(files: &[(&str, &str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        for (folder, name, text) in files {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join(name), text).unwrap();
        }
        let dirs = ["etc", "run"].map(|folder| dir.path().join(folder));
        (dir, dirs.into())
    }

    #[test]
    fn edits_of_a_file_and_of_its_devices_are_merged() {
        let (_dir, dirs) =
            dirs(&[("etc", "a.json", JSON), ("run", "b.yaml", YAML), ("etc", "c.txt", "x")]);
        let names = ["acme.com/gpu=0", "acme.com/nic=a", "acme.com/gpu=1"];
        let edits = resolve(&names, &dirs, 33).unwrap();
        assert_eq!(edits.env, ["ALL=1", "GPU=0", "NIC=a", "GPU=1"]);
        assert_eq!(edits.groups, [44]);
        let nodes: Vec<_> =
            edits.nodes.iter().map(|n| (&*n.path, n.kind, n.major, n.uid)).collect();
        let expected = [
            ("/dev/gpu0", 'c', 1, Some(33)),
            ("/dev/far", 'b', 9, Some(33)),
            ("/dev/zero", 'c', 1, Some(33)),
        ];
        assert_eq!(nodes, expected);
        assert_eq!(edits.nodes[0].access, "rw");
        assert_eq!(edits.hooks["createContainer"].len(), 1);
        assert_eq!(edits.mounts[0].options, ["ro", "nosuid"]);
    }

    #[test]
    fn later_folders_win_and_rivals_of_one_folder_are_refused() {
        let other = JSON.replace("GPU=1", "GPU=later");
        let (_dir, all) = dirs(&[("etc", "a.json", JSON), ("run", "a.json", &other)]);
        assert_eq!(resolve(&["acme.com/gpu=1"], &all, 0).unwrap().env, ["ALL=1", "GPU=later"]);
        let (_dir, all) = dirs(&[("etc", "a.json", JSON), ("etc", "b.json", JSON)]);
        let error = resolve(&["acme.com/gpu=1"], &all, 0).unwrap_err().to_string();
        assert!(error.contains("both") && error.contains("b.json"), "{error}");
    }

    #[test]
    fn what_cannot_be_found_names_the_folders() {
        let (_dir, all) = dirs(&[("etc", "broken.yaml", "kind: [")]);
        let error = resolve(&["acme.com/gpu=9"], &all, 0).unwrap_err().to_string();
        assert!(error.starts_with("unresolvable CDI devices acme.com/gpu=9: no specification in "));
        assert!(
            error.contains("/etc or ") && error.contains("broken.yaml is passed over"),
            "{error}"
        );
        for name in ["gpu", "acme.com/gpu", "acme.com=0", "/gpu=0", "acme.com/gpu=", "9/a=0"] {
            let error = resolve(&[name], &all, 0).unwrap_err().to_string();
            assert!(error.starts_with("invalid CDI device name"), "{error}");
        }
        let gone = JSON.replace("/dev/null", "/dev/no-such");
        let (_dir, all) = dirs(&[("etc", "a.json", &gone)]);
        let error = resolve(&["acme.com/gpu=0"], &all, 0).unwrap_err();
        assert!(error.to_string().contains("acme.com/gpu=0"), "{error}");
    }
}
