//! A user's own seccomp profile, in Docker's format: rules that hold by capability, processor and
//! kernel, turned into the plain ones of the OCI specification.

use super::{Facts, SpecError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The largest profile that is read. Docker's own, written out, has 15 KiB; a service's spec as a
/// whole is limited where it is accepted.
const SIZE_MAX: usize = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(default)]
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<Architecture>,
    #[serde(default)]
    flags: Vec<String>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value_two: Option<u64>,
    op: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Turns a profile into the OCI specification's; none where it says nothing at all, which Docker
/// takes for "unconfined".
pub(super) fn convert(
    text: &str,
    architecture: &str,
    capabilities: &[&str],
    facts: &Facts,
) -> Result<Option<Value>, SpecError> {
    if text.len() > SIZE_MAX {
        return Err(SpecError::Seccomp("it is larger than 1 MiB".to_owned()));
    }
    let profile: Profile =
        serde_json::from_str(text).map_err(|error| SpecError::Seccomp(error.to_string()))?;
    if profile.default_action.is_empty() && profile.syscalls.is_empty() {
        return Ok(None);
    }
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(SpecError::Seccomp(
            "use either 'architectures' or 'archMap' and not both".to_owned(),
        ));
    }
    let (native, own) = names_of(architecture);
    let mut architectures = profile.architectures;
    if let Some(map) = profile.arch_map.into_iter().find(|map| map.architecture == own) {
        architectures.push(map.architecture);
        architectures.extend(map.sub_architectures.unwrap_or_default());
    }
    let mut rules = Vec::new();
    for rule in profile.syscalls {
        if let Some(rule) = rule.convert(native, capabilities, facts)? {
            rules.push(rule);
        }
    }
    let mut converted = json!({ "defaultAction": profile.default_action, "syscalls": rules });
    let optional = [
        ("defaultErrnoRet", profile.default_errno_ret.map(Value::from)),
        ("architectures", some(architectures)),
        ("flags", some(profile.flags)),
        ("listenerPath", profile.listener_path.map(Value::from)),
        ("listenerMetadata", profile.listener_metadata.map(Value::from)),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            converted[key] = value;
        }
    }
    Ok(Some(converted))
}

fn some(list: Vec<String>) -> Option<Value> {
    (!list.is_empty()).then(|| Value::from(list))
}

/// Returns what Docker's filters and libseccomp call a processor.
fn names_of(architecture: &str) -> (&'static str, &'static str) {
    match architecture {
        "amd64" => ("amd64", "SCMP_ARCH_X86_64"),
        "386" => ("x86", "SCMP_ARCH_X86"),
        "arm64" => ("arm64", "SCMP_ARCH_AARCH64"),
        "arm" => ("arm", "SCMP_ARCH_ARM"),
        "riscv64" => ("riscv64", "SCMP_ARCH_RISCV64"),
        "ppc64le" => ("ppc64le", "SCMP_ARCH_PPC64LE"),
        "s390x" => ("s390x", "SCMP_ARCH_S390X"),
        _ => ("", ""),
    }
}

impl Rule {
    fn convert(
        self,
        native: &str,
        capabilities: &[&str],
        facts: &Facts,
    ) -> Result<Option<Value>, SpecError> {
        let names = match (self.name.as_str(), self.names.unwrap_or_default()) {
            ("", names) => names,
            (name, names) if names.is_empty() => vec![name.to_owned()],
            _ => {
                let text = "use either 'name' or 'names' of a rule and not both";
                return Err(SpecError::Seccomp(text.to_owned()));
            }
        };
        let excludes = self.excludes.unwrap_or_default();
        let includes = self.includes.unwrap_or_default();
        let is_granted = |name: &String| capabilities.contains(&name.as_str());
        let is_native = |name: &String| name == native;
        let excluded = excludes.caps.iter().flatten().any(is_granted)
            || excludes.arches.iter().flatten().any(is_native)
            || matches!(&excludes.min_kernel, Some(least) if reached(least, facts)?);
        let included = includes.caps.iter().flatten().all(is_granted)
            && includes.arches.is_none_or(|all| all.is_empty() || all.iter().any(is_native))
            && !matches!(&includes.min_kernel, Some(least) if !reached(least, facts)?);
        if excluded || !included {
            return Ok(None);
        }
        let mut rule = json!({ "names": names, "action": self.action });
        if let Some(errno) = self.errno_ret {
            rule["errnoRet"] = errno.into();
        }
        if let Some(args) = self.args.filter(|args| !args.is_empty()) {
            rule["args"] = json!(args);
        }
        Ok(Some(rule))
    }
}

/// Tells whether the kernel is of a version or later.
fn reached(least: &str, facts: &Facts) -> Result<bool, SpecError> {
    let wrong = || SpecError::Seccomp(format!("{least:?} is no kernel version"));
    let (major, minor) = least.split_once('.').ok_or_else(wrong)?;
    let least =
        (major.parse::<u32>().map_err(|_| wrong())?, minor.parse::<u32>().map_err(|_| wrong())?);
    Ok(facts.kernel >= least)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                    {"architecture": "SCMP_ARCH_AARCH64"}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "x"},
            {"name": "ptrace", "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW",
             "includes": {"arches": ["amd64", "x32"]}, "excludes": {}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]},
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
        ]}"#;

    fn rules(architecture: &str, capabilities: &[&str], kernel: (u32, u32)) -> String {
        let facts = Facts { kernel, ..Facts::default() };
        let value = convert(PROFILE, architecture, capabilities, &facts).unwrap().unwrap();
        let rules = value["syscalls"].as_array().unwrap().iter();
        rules.map(|rule| rule["names"][0].as_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn rules_hold_by_capability_processor_and_kernel() {
        assert_eq!(rules("amd64", &[], (4, 8)), "read ptrace arch_prctl clone clone3");
        assert_eq!(rules("arm64", &["CAP_SYS_ADMIN"], (4, 7)), "read mount clone3");
        let value = convert(PROFILE, "amd64", &[], &Facts::default()).unwrap().unwrap();
        assert_eq!(value["architectures"], json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]));
        let clone = value["syscalls"].as_array().unwrap().iter().find(|r| r["names"][0] == "clone");
        assert_eq!(clone.unwrap()["args"][0]["valueTwo"], 0);
    }

    #[test]
    fn nonsense_is_refused_and_an_empty_profile_is_none() {
        let facts = Facts::default();
        assert_eq!(convert("{}", "amd64", &[], &facts).unwrap(), None);
        for (text, expected) in [
            ("not json", "expected ident"),
            (
                r#"{"defaultAction":"A","architectures":["X"],"archMap":[{"architecture":"Y"}]}"#,
                "'architectures' or 'archMap'",
            ),
            (r#"{"syscalls":[{"name":"a","names":["b"],"action":"A"}]}"#, "'name' or 'names'"),
            (
                r#"{"syscalls":[{"name":"a","action":"A","includes":{"minKernel":"x"}}]}"#,
                "no kernel version",
            ),
        ] {
            let error = convert(text, "amd64", &[], &facts).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("seccomp"), "{error}");
        }
    }
}
