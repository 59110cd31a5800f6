//! What single words of list options say: hosts, limits, devices, addresses, files of variables.

use crate::{cli::exit::CliError, util::address::without_brackets};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Reads `--host`: `NAME:ADDRESS` or `NAME=ADDRESS`; returns a line of a hosts file.
pub(in crate::cli) fn parse_host(text: &str) -> Result<String, String> {
    let parts = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, address)) = parts.filter(|(name, _)| !name.is_empty()) else {
        return Err(format!("bad format for add-host: {text:?}"));
    };
    let bare = without_brackets(address);
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{bare} {name}"))
}

/// Reads `--dns`.
pub(in crate::cli) fn parse_ip(text: &str) -> Result<String, String> {
    let address: IpAddr = text
        .trim()
        .parse()
        .map_err(|_| format!("IP address is not correctly formatted: {text}"))?;
    Ok(address.to_string())
}

/// Reads `--ulimit`: `NAME=SOFT[:HARD]`.
pub(in crate::cli) fn parse_ulimit(text: &str) -> Result<Value, String> {
    let invalid = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').filter(|(n, _)| !n.is_empty()).ok_or_else(invalid)?;
    let limits: Vec<&str> = limits.split(':').collect();
    let number = |text: &str| text.parse::<i64>().map_err(|_| invalid());
    let (soft, hard) = match limits.as_slice() {
        [both] => (number(both)?, number(both)?),
        [soft, hard] => (number(soft)?, number(hard)?),
        _ => {
            let limits = limits.join(":");
            return Err(format!(
                "too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`"
            ));
        }
    };
    let above = |limit: i64| if limit == -1 { i64::MAX } else { limit };
    if above(soft) > above(hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(json!({"Name": name, "Soft": soft, "Hard": hard}))
}

/// Reads `--sysctl` and `--log-opt`: `KEY=VALUE`.
pub(in crate::cli) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("invalid argument {text:?}: KEY=VALUE is expected")),
    }
}

/// Reads `--device`: `PATH[:TARGET[:PERMISSIONS]]`, or a CDI name.
pub(in crate::cli) fn parse_device(text: &str) -> Result<Value, String> {
    if !text.starts_with('/') {
        return match text.split_once('=') {
            Some((kind, device)) if kind.contains('/') && !device.is_empty() => {
                Ok(json!({"CDI": text}))
            }
            _ => Err(format!("bad format for path: {text:?}: PATH or vendor.com/class=name")),
        };
    }
    let mode = |text: &str| {
        let once = |c: char| text.matches(c).count() == 1;
        !text.is_empty() && text.chars().all(|c| "rwm".contains(c) && once(c))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, permissions] if mode(permissions) => (*source, *source, *permissions),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] => (*source, *target, *permissions),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if !mode(permissions) {
        return Err(format!("invalid device mode: {permissions}"));
    }
    if !target.starts_with('/') {
        return Err(format!("{target} is not an absolute path"));
    }
    Ok(json!({
        "PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions,
    }))
}

/// Reads `--security-opt`: as the API has it, but for a profile, which is a file of this machine.
pub(in crate::cli) fn security_option(text: &str) -> Result<String, CliError> {
    let word = text.replacen(':', "=", usize::from(!text.contains('=')));
    let Some(path) = word.strip_prefix("seccomp=") else { return Ok(word) };
    if matches!(path, "unconfined" | "builtin" | "default") {
        return Ok(word);
    }
    let profile = std::fs::read(path).map_err(|error| {
        CliError::failure(format!("opening seccomp profile ({path}) failed: {error}"))
    })?;
    let profile: Value = serde_json::from_slice(&profile).map_err(|error| {
        CliError::failure(format!("compacting json for seccomp profile ({path}) failed: {error}"))
    })?;
    Ok(format!("seccomp={profile}"))
}

/// Reads a file of `--env-file`: a variable a line, `#` before comments, `NAME` alone for the value
/// it has here, left out where it has none.
pub(in crate::cli) fn env_file(path: &str) -> Result<Vec<String>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => {
            CliError::failure(format!("env file {path} contains invalid utf8 bytes"))
        }
        _ => CliError::failure(format!("cannot read env file {path}: {error}")),
    })?;
    env_lines(&text, |name| std::env::var(name).ok())
        .map_err(|message| CliError::failure(format!("invalid env file ({path}): {message}")))
}

fn env_lines(text: &str, here: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, String> {
    let mut entries = Vec::new();
    for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line.trim_end(), None),
        };
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        match value {
            Some(value) => entries.push(format!("{name}={value}")),
            None => entries.extend(here(name).map(|value| format!("{name}={value}"))),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_become_lines() {
        for (written, line) in [
            ("db:10.0.0.1", "10.0.0.1 db"),
            ("db=10.0.0.1", "10.0.0.1 db"),
            ("db:::1", "::1 db"),
            ("db:[fe80::1]", "fe80::1 db"),
            ("db=fe80::1", "fe80::1 db"),
        ] {
            assert_eq!(parse_host(written).as_deref(), Ok(line), "{written}");
        }
        for (written, message) in [
            ("nope", "bad format for add-host: \"nope\""),
            (":10.0.0.1", "bad format for add-host: \":10.0.0.1\""),
            ("db:x", "invalid IP address in add-host: \"x\""),
        ] {
            assert_eq!(parse_host(written), Err(message.to_owned()));
        }
        assert_eq!(parse_ip("nope").unwrap_err(), "IP address is not correctly formatted: nope");
    }

    #[test]
    fn limits_are_one_or_two_numbers() {
        for (written, soft, hard) in
            [("nofile=64", 64, 64), ("core=0:-1", 0, -1), ("nproc=-1", -1, -1), ("nice=1:2", 1, 2)]
        {
            let found = parse_ulimit(written).unwrap();
            assert_eq!((&found["Soft"], &found["Hard"]), (&json!(soft), &json!(hard)));
        }
        for (written, message) in [
            ("nofile", "invalid ulimit argument: nofile"),
            ("=1", "invalid ulimit argument: =1"),
            ("nofile=x", "invalid ulimit argument: nofile=x"),
            (
                "nofile=1:2:3",
                "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`",
            ),
            ("nofile=2:1", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
            ("nofile=-1:1", "ulimit soft limit must be less than or equal to hard limit: -1 > 1"),
        ] {
            assert_eq!(parse_ulimit(written), Err(message.to_owned()));
        }
    }

    #[test]
    fn devices_are_paths_or_names() {
        let path = |source: &str, target: &str, permissions: &str| {
            Ok(json!({"PathOnHost": source, "PathInContainer": target,
                      "CgroupPermissions": permissions}))
        };
        assert_eq!(parse_device("/dev/a"), path("/dev/a", "/dev/a", "rwm"));
        assert_eq!(parse_device("/dev/a:/dev/b"), path("/dev/a", "/dev/b", "rwm"));
        assert_eq!(parse_device("/dev/a:rw"), path("/dev/a", "/dev/a", "rw"));
        assert_eq!(parse_device("/dev/a:/dev/b:r"), path("/dev/a", "/dev/b", "r"));
        assert_eq!(parse_device("nvidia.com/gpu=all"), Ok(json!({"CDI": "nvidia.com/gpu=all"})));
        for bad in ["a", "/a:/b:rr", "/a:/b:x", "/a:b", "/a:/b:r:w", "gpu=0", "a/b=", ""] {
            assert!(parse_device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_of_variables_read_as_dockers() {
        let here = |name: &str| (name == "HERE").then(|| "1".to_owned());
        let text = "\u{feff}A=1\n# note\n\n  B = 2\nHERE\nGONE\nC=x=y # kept\r\nD=";
        assert_eq!(
            env_lines(&text.replace("B = 2", "B=2 "), here).unwrap(),
            ["A=1", "B=2 ", "HERE=1", "C=x=y # kept", "D="]
        );
        assert_eq!(env_lines(text, here).unwrap_err(), "variable 'B ' contains whitespaces");
        assert_eq!(env_lines("=x", here).unwrap_err(), "no variable name on line '=x'");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\PC:=/,-]{0,30}") {
            parse_host(&text).ok();
            parse_ip(&text).ok();
            parse_ulimit(&text).ok();
            parse_pair(&text).ok();
            parse_device(&text).ok();
            env_lines(&text, |_| None).ok();
        }
    }
}
