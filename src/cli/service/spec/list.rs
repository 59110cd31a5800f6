//! Options that can be repeated: at create a list, at update what is added and what is removed.

use super::{
    parse::{
        env_file, parse_device, parse_host, parse_ip, parse_pair, parse_ulimit, security_option,
    },
    set_list, take_list,
};
use crate::{
    cli::{exit::CliError, human::text},
    util::address::without_brackets,
};
use clap::Args;
use serde_json::{Value, json};

/// The fields of `Privileges` that `--security-opt` says as well.
const PRIVILEGES: [&str; 3] = ["NoNewPrivileges", "Seccomp", "AppArmor"];

/// Lists of a new service.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct NewLists {
    /// Read environment variables from a file, one a line (can be repeated)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Add a supplementary group for the user inside (can be repeated)
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Add a name to the hosts file inside (can be repeated)
    #[arg(long = "host", id = "extra-host", value_parser = parse_host, value_name = "NAME:ADDRESS")]
    host: Vec<String>,
    /// Ask this name server instead of the node's (can be repeated)
    #[arg(long, value_parser = parse_ip, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Set an option of the resolver, for example ndots:2 (can be repeated)
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Try short names in this domain (can be repeated)
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Set a kernel parameter of the container's own (can be repeated)
    #[arg(long, value_parser = parse_pair, value_name = "KEY=VALUE")]
    sysctl: Vec<(String, String)>,
    /// Limit each process, for example nofile=1024:4096 (can be repeated)
    #[arg(long, value_parser = parse_ulimit, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Value>,
    /// Give a device of the node, by path or CDI name (can be repeated)
    #[arg(long, value_parser = parse_device, value_name = "PATH[:TARGET[:PERMISSIONS]]|NAME")]
    device: Vec<Value>,
    /// Loosen or tighten confinement, for example no-new-privileges (can be repeated)
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
}

/// Changes to the lists of a service.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct ListChanges {
    /// Add a supplementary group for the user inside (can be repeated)
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Remove a supplementary group (can be repeated)
    #[arg(long, value_name = "GROUP")]
    group_rm: Vec<String>,
    /// Add a name to the hosts file inside (can be repeated)
    #[arg(long, value_parser = parse_host, value_name = "NAME:ADDRESS")]
    host_add: Vec<String>,
    /// Remove a name from the hosts file inside (can be repeated)
    #[arg(long, value_name = "NAME[:ADDRESS]")]
    host_rm: Vec<String>,
    /// Ask this name server as well (can be repeated)
    #[arg(long, value_parser = parse_ip, value_name = "ADDRESS")]
    dns_add: Vec<String>,
    /// Ask this name server no more (can be repeated)
    #[arg(long, value_name = "ADDRESS")]
    dns_rm: Vec<String>,
    /// Set an option of the resolver (can be repeated)
    #[arg(long, value_name = "OPTION")]
    dns_option_add: Vec<String>,
    /// Remove an option of the resolver (can be repeated)
    #[arg(long, value_name = "OPTION")]
    dns_option_rm: Vec<String>,
    /// Try short names in this domain (can be repeated)
    #[arg(long, value_name = "DOMAIN")]
    dns_search_add: Vec<String>,
    /// Try short names in this domain no more (can be repeated)
    #[arg(long, value_name = "DOMAIN")]
    dns_search_rm: Vec<String>,
    /// Set a kernel parameter of the container's own (can be repeated)
    #[arg(long, value_parser = parse_pair, value_name = "KEY=VALUE")]
    sysctl_add: Vec<(String, String)>,
    /// Set a kernel parameter no more (can be repeated)
    #[arg(long, value_name = "KEY")]
    sysctl_rm: Vec<String>,
    /// Limit each process, for example nofile=1024:4096 (can be repeated)
    #[arg(long, value_parser = parse_ulimit, value_name = "NAME=SOFT[:HARD]")]
    ulimit_add: Vec<Value>,
    /// Remove a limit of processes (can be repeated)
    #[arg(long, value_name = "NAME")]
    ulimit_rm: Vec<String>,
    /// Give a device of the node, by path or CDI name (can be repeated)
    #[arg(long, value_parser = parse_device, value_name = "PATH[:TARGET[:PERMISSIONS]]|NAME")]
    device_add: Vec<Value>,
    /// Take a device away, by its path inside or CDI name (can be repeated)
    #[arg(long, value_name = "TARGET|NAME")]
    device_rm: Vec<String>,
    /// Loosen or tighten confinement, for example no-new-privileges (can be repeated)
    #[arg(long, value_name = "OPTION")]
    security_opt_add: Vec<String>,
    /// Remove an option of confinement, by what stands before = (can be repeated)
    #[arg(long, value_name = "KEY")]
    security_opt_rm: Vec<String>,
}

impl NewLists {
    /// Returns the variables of all files, in order.
    pub(in crate::cli) fn file_variables(&self) -> Result<Vec<String>, CliError> {
        let files = self.env_file.iter().map(|path| env_file(path));
        Ok(files.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Writes the lists into a new container.
    pub(in crate::cli) fn apply(&self, container: &mut Value) -> Result<(), CliError> {
        let changes = ListChanges {
            group_add: self.group.clone(),
            host_add: self.host.clone(),
            dns_add: self.dns.clone(),
            dns_option_add: self.dns_option.clone(),
            dns_search_add: self.dns_search.clone(),
            sysctl_add: self.sysctl.clone(),
            ulimit_add: self.ulimit.clone(),
            device_add: self.device.clone(),
            security_opt_add: self.security_opt.clone(),
            ..ListChanges::default()
        };
        changes.apply(container)
    }
}

impl ListChanges {
    /// Merges the changes into the container.
    pub(in crate::cli) fn apply(&self, container: &mut Value) -> Result<(), CliError> {
        texts(container, "Groups", &self.group_add, &self.group_rm);
        if !self.host_add.is_empty() || !self.host_rm.is_empty() {
            let hosts = merge_hosts(&take_list(container, "/Hosts"), &self.host_add, &self.host_rm);
            set_list(container, "Hosts", hosts.into_iter().map(Value::from).collect());
        }
        if container["DNSConfig"].is_null() {
            container["DNSConfig"] = json!({});
        }
        let dns = &mut container["DNSConfig"];
        texts(dns, "Nameservers", &self.dns_add, &self.dns_rm);
        texts(dns, "Options", &self.dns_option_add, &self.dns_option_rm);
        texts(dns, "Search", &self.dns_search_add, &self.dns_search_rm);
        if !self.sysctl_add.is_empty() || !self.sysctl_rm.is_empty() {
            container["Sysctls"] =
                super::merge_labels(&container["Sysctls"], &self.sysctl_add, &self.sysctl_rm);
        }
        if !self.ulimit_add.is_empty() || !self.ulimit_rm.is_empty() {
            let name = |ulimit: &Value| text(ulimit, "/Name").to_owned();
            let old = take_list(container, "/Ulimits");
            let mut merged = merge_keyed(old, &self.ulimit_add, &self.ulimit_rm, name);
            merged.sort_by_key(name);
            set_list(container, "Ulimits", merged);
        }
        if !self.device_add.is_empty() || !self.device_rm.is_empty() {
            let old = take_list(container, "/Devices");
            let merged = merge_keyed(old, &self.device_add, &self.device_rm, |device| {
                let (target, name) = (text(device, "/PathInContainer"), text(device, "/CDI"));
                (if target.is_empty() { name } else { target }).to_owned()
            });
            // Said even where it is empty: left out, the daemon keeps what there was.
            container["Devices"] = Value::Array(merged);
        }
        self.apply_security(container)
    }

    fn apply_security(&self, container: &mut Value) -> Result<(), CliError> {
        if self.security_opt_add.is_empty() && self.security_opt_rm.is_empty() {
            return Ok(());
        }
        let key = |word: &Value| {
            let word = word.as_str().unwrap_or("");
            word.split('=').next().unwrap_or("").to_owned()
        };
        let add = self.security_opt_add.iter().map(|text| security_option(text).map(Value::from));
        let add: Vec<Value> = add.collect::<Result<_, _>>()?;
        let old = stored_security(container)?;
        let merged = merge_keyed(old, &add, &self.security_opt_rm, key);
        container["SecurityOpt"] = Value::Array(merged);
        if let Some(privileges) = container["Privileges"].as_object_mut() {
            PRIVILEGES.iter().for_each(|field| drop(privileges.remove(*field)));
        }
        Ok(())
    }
}

/// Returns what confines the container as words, also what Docker's fields say of it.
fn stored_security(container: &Value) -> Result<Vec<Value>, CliError> {
    use base64::Engine;
    let mut words = Vec::new();
    let privileges = &container["Privileges"];
    if privileges["NoNewPrivileges"] == true {
        words.push(json!("no-new-privileges"));
    }
    match text(privileges, "/Seccomp/Mode") {
        "unconfined" => words.push(json!("seccomp=unconfined")),
        "custom" => {
            let profile = base64::engine::general_purpose::STANDARD
                .decode(text(privileges, "/Seccomp/Profile"))
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| CliError::failure("unreadable answer: a seccomp profile"))?;
            words.push(json!(format!("seccomp={profile}")));
        }
        _ => {}
    }
    if text(privileges, "/AppArmor/Mode") == "disabled" {
        words.push(json!("apparmor=unconfined"));
    }
    words.extend(take_list(container, "/SecurityOpt"));
    Ok(words)
}

/// Merges texts at `field`, each of which is its own key.
fn texts(target: &mut Value, field: &str, add: &[String], remove: &[String]) {
    if !add.is_empty() || !remove.is_empty() {
        let old = take_list(target, &format!("/{field}"));
        set_list(target, field, super::merge_texts(old, add, remove));
    }
}

/// Returns a list without what has the keys in `remove`, and with what is in `add` in the place of
/// what has its key.
fn merge_keyed(
    mut list: Vec<Value>,
    add: &[Value],
    remove: &[String],
    key: impl Fn(&Value) -> String,
) -> Vec<Value> {
    list.retain(|item| !remove.contains(&key(item)));
    for item in add {
        match list.iter_mut().find(|there| key(there) == key(item)) {
            Some(there) => there.clone_from(item),
            None => list.push(item.clone()),
        }
    }
    list
}

/// Returns lines of a hosts file without the names in `remove` (`NAME`, or `NAME:ADDRESS` for that
/// address only), and with the lines in `add`. The order stays: of two lines the first counts.
fn merge_hosts(lines: &[Value], add: &[String], remove: &[String]) -> Vec<String> {
    let removed = |address: &str, name: &str| {
        remove.iter().any(|text| match text.split_once(['=', ':']) {
            None => text == name,
            Some((host, ip)) => {
                let bare = without_brackets(ip);
                host == name && (bare.is_empty() || bare == address)
            }
        })
    };
    let mut merged: Vec<String> = Vec::new();
    for line in lines.iter().filter_map(Value::as_str) {
        let mut words = line.split_whitespace();
        let address = words.next().unwrap_or("");
        let all: Vec<&str> = words.collect();
        let left: Vec<&str> = all.iter().copied().filter(|name| !removed(address, name)).collect();
        if left.len() == all.len() {
            merged.push(line.to_owned());
        } else if !left.is_empty() {
            merged.push(format!("{address} {}", left.join(" ")));
        }
    }
    for line in add {
        if !merged.contains(line) {
            merged.push(line.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn hosts_go_by_name_and_address() {
        let lines = [json!("10.0.0.1 a b"), json!("10.0.0.2 a"), json!("::1 c")];
        let merge =
            |add: &[&str], remove: &[&str]| merge_hosts(&lines, &words(add), &words(remove));
        assert_eq!(merge(&[], &["a"]), ["10.0.0.1 b", "::1 c"]);
        assert_eq!(merge(&[], &["a:10.0.0.2"]), ["10.0.0.1 a b", "::1 c"]);
        assert_eq!(merge(&[], &["c:[::1]", "a:10.0.0.9"]), ["10.0.0.1 a b", "10.0.0.2 a"]);
        assert_eq!(
            merge(&["10.0.0.2 a", "10.0.0.3 a"], &["b"]),
            ["10.0.0.1 a", "10.0.0.2 a", "::1 c", "10.0.0.3 a"]
        );
    }

    #[test]
    fn every_list_goes_by_its_key() {
        let mut container = json!({
            "Groups": ["a", "b"],
            "DNSConfig": {"Nameservers": ["10.0.0.1", "10.0.0.2"], "Search": ["x"]},
            "Sysctls": {"net.a": "1", "net.b": "2"},
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 1}, {"Name": "core"}],
            "Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b"}, {"CDI": "v/c=1"}],
            "Privileges": {"NoNewPrivileges": true, "Seccomp": {"Mode": "unconfined"}},
            "SecurityOpt": ["systempaths=unconfined"],
        });
        let changes = ListChanges {
            group_add: words(&["c", "b"]),
            group_rm: words(&["a"]),
            dns_rm: words(&["10.0.0.1"]),
            dns_search_rm: words(&["x"]),
            dns_option_add: words(&["ndots:2"]),
            sysctl_add: vec![("net.b".into(), "3".into())],
            sysctl_rm: words(&["net.a"]),
            ulimit_add: vec![parse_ulimit("nofile=2").unwrap(), parse_ulimit("cpu=1").unwrap()],
            ulimit_rm: words(&["core"]),
            device_rm: words(&["/dev/b", "v/c=1"]),
            security_opt_add: words(&["apparmor:profile"]),
            security_opt_rm: words(&["seccomp"]),
            ..ListChanges::default()
        };
        changes.apply(&mut container).unwrap();
        assert_eq!(
            container,
            json!({
                "Groups": ["b", "c"],
                "DNSConfig": {"Nameservers": ["10.0.0.2"], "Options": ["ndots:2"]},
                "Sysctls": {"net.b": "3"},
                "Ulimits": [{"Name": "cpu", "Soft": 1, "Hard": 1},
                            {"Name": "nofile", "Soft": 2, "Hard": 2}],
                "Devices": [],
                "Privileges": {},
                "SecurityOpt": ["no-new-privileges", "systempaths=unconfined", "apparmor=profile"],
            })
        );
    }

    #[test]
    fn a_profile_is_read_here() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }").unwrap();
        let changes = ListChanges {
            security_opt_add: vec![format!("seccomp={}", file.path().display())],
            ..ListChanges::default()
        };
        let mut container = json!({});
        changes.apply(&mut container).unwrap();
        let expected = json!(["seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]);
        assert_eq!(container["SecurityOpt"], expected);
        let missing = security_option("seccomp=/nope").unwrap_err();
        assert!(missing.message.starts_with("opening seccomp profile (/nope) failed"));
    }

    proptest! {
        #[test]
        fn keys_stay_unique(
            old in proptest::collection::btree_set("[a-e]", 0..5),
            add in proptest::collection::vec("[a-g]", 0..5),
            remove in proptest::collection::vec("[a-g]", 0..5),
        ) {
            let key = |value: &Value| value.as_str().unwrap_or("").to_owned();
            let old: Vec<Value> = old.into_iter().map(Value::from).collect();
            let added: Vec<Value> = add.iter().cloned().map(Value::from).collect();
            let merged = merge_keyed(old.clone(), &added, &remove, key);
            let keys: std::collections::BTreeSet<String> = merged.iter().map(key).collect();
            prop_assert_eq!(keys.len(), merged.len());
            let kept = old.iter().map(key).filter(|name| !remove.contains(name));
            prop_assert_eq!(keys, kept.chain(add).collect());
        }
    }
}
