//! Reads the source and enforces what the code map promises.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Which of our modules each module may name, beside itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("util", &[]),
    ("cluster", &["types", "util"]),
    ("agent", &["types", "util"]),
    ("wire", &["types", "cluster", "util"]),
    ("consensus", &["types", "util"]),
    ("store", &["types", "cluster", "agent", "consensus", "util"]),
    ("pki", &["types", "util"]),
    ("transport", &["types", "cluster", "wire", "pki", "util"]),
    ("runtime", &["types", "agent", "util"]),
    ("network", &["types", "agent", "util"]),
    ("api", &["types", "cluster", "util"]),
    ("node", &["types", "cluster", "agent", "wire", "consensus", "util"]),
    (
        "daemon",
        &[
            "types",
            "cluster",
            "agent",
            "wire",
            "consensus",
            "store",
            "pki",
            "transport",
            "runtime",
            "network",
            "api",
            "node",
            "util",
        ],
    ),
    ("doctor", &["types", "pki", "transport", "runtime", "network", "util"]),
    ("cli", &["types", "api", "daemon", "doctor", "util"]),
    (
        "sim",
        &["types", "cluster", "agent", "wire", "consensus", "store", "runtime", "node", "util"],
    ),
];

/// The parts of the daemon, in layers: each names those of its own and of the ones before only.
const DAEMON: &[&[&str]] = &[
    &["machine", "config", "membership", "error", "installation"],
    &["collector", "teller", "workload", "ports"],
    &["member", "shared"],
    &["remote", "containers"],
    &["streams"],
    &["life"],
    &["local"],
];

/// Modules, and parts of one, that decide and do nothing else.
const PURE: &[&str] =
    &["types", "cluster", "agent", "wire", "doctor/facts", "doctor/finding", "doctor/diagnose"];

/// What a pure module must not say.
const IMPURE: &[&str] = &[
    "async ",
    ".await",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "std::net::Tcp",
    "std::net::Udp",
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "thread_rng",
    "getrandom",
    "println!",
    "tracing::",
];

/// The longest file: beyond it, it is no longer one thing.
const FILE_LINES_MAX: usize = 1_000;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every Rust file below a folder with its text.
fn sources(below: &str) -> BTreeMap<PathBuf, String> {
    fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path, text);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root().join(below), &mut found);
    assert!(!found.is_empty(), "no source below {below}");
    found
}

/// Returns the folder of `src` that a file belongs to.
fn module_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix(root().join("src")).ok()?;
    let first = below.components().next()?.as_os_str().to_str()?;
    Some(first.trim_end_matches(".rs").to_owned())
}

/// Returns the text without comments and without what only tests see.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = body.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    let file = path.file_name().unwrap().to_str().unwrap();
    ["tests.rs", "fuzz.rs"].contains(&file)
        || file.ends_with("_tests.rs")
        || path.components().any(|c| c.as_os_str() == "tests")
}

#[test]
fn modules_name_only_what_they_may() {
    let mut broken = Vec::new();
    for (path, text) in sources("src") {
        let Some(module) = module_of(&path) else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            assert!(["lib", "main"].contains(&module.as_str()), "{module} is in no layer");
            continue;
        };
        if is_test(&path) {
            continue;
        }
        let code = code(&text);
        for (other, _) in LAYERS {
            let named = [format!("crate::{other}::"), format!("crate::{other}}}")]
                .iter()
                .any(|word| code.contains(word.as_str()))
                || code.split("use crate::{").skip(1).any(|group| group_names(group, other));
            if named && module != *other && !allowed.contains(other) {
                broken.push(format!("{} names {other}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_daemon_s_parts_name_only_what_comes_before() {
    let mut broken = Vec::new();
    for (path, text) in sources("src/daemon") {
        let below = path.strip_prefix(root().join("src/daemon")).unwrap();
        let part = below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        // The root puts all of them together.
        if part == "mod" || is_test(&path) {
            continue;
        }
        let layer = DAEMON.iter().position(|layer| layer.contains(&part));
        let layer = layer.unwrap_or_else(|| panic!("{part} is in no layer of the daemon"));
        let code = code(&text);
        let is_top = below.iter().count() == 1;
        let prefixes: &[&str] = if is_top { &["daemon", "super"] } else { &["daemon"] };
        for prefix in prefixes {
            for later in DAEMON[layer + 1..].iter().copied().flatten() {
                if code.contains(&format!("{prefix}::{later}::"))
                    || code.contains(&format!("{prefix}::{later};"))
                    || code
                        .split(&format!("{prefix}::{{"))
                        .skip(1)
                        .any(|group| group_names(group, later))
                {
                    broken.push(format!("{} names {later}", below.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Tells whether a `use crate::{...}` group names `module` at its first level.
fn group_names(group: &str, module: &str) -> bool {
    let mut depth = 0;
    let mut word = String::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            c if depth == 0 && (c.is_alphanumeric() || c == '_') => {
                word.push(c);
                continue;
            }
            ':' if depth == 0 && word == module => return true,
            _ => {}
        }
        if depth == 0 && word == module {
            return true;
        }
        if c == ',' || c == '{' || c == ' ' || c == '\n' {
            word.clear();
        }
    }
    word == module
}

/// Tells whether the code holds `word`, not as the beginning of a longer one.
fn says(code: &str, word: &str) -> bool {
    let ends_in_letter = word.ends_with(|c: char| c.is_alphanumeric());
    code.match_indices(word).any(|(at, _)| {
        let next = code[at + word.len()..].chars().next();
        !ends_in_letter || !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn pure_modules_touch_nothing() {
    let mut broken = Vec::new();
    for (path, text) in sources("src") {
        let below = path.strip_prefix(root().join("src")).unwrap().with_extension("");
        if !PURE.iter().any(|part| below.starts_with(part)) || is_test(&path) {
            continue;
        }
        let code = code(&text);
        for word in IMPURE {
            if says(&code, word) {
                broken.push(format!("{} says {word:?}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn edge_types_stay_at_the_edge() {
    let edges = [
        ("clap", "cli"),
        ("prost", "runtime"),
        ("containerd_client", "runtime"),
        ("rtnetlink", "network"),
        ("quinn", "transport"),
        ("redb", "store"),
        ("openraft", "consensus"),
    ];
    let mut broken = Vec::new();
    for (path, text) in sources("src") {
        let Some(module) = module_of(&path) else { continue };
        let code = code(&text);
        for (library, home) in edges {
            let names =
                code.contains(&format!("{library}::")) || code.contains(&format!("use {library}"));
            // The simulator is a runtime of the engine's, and its disk is one of the store's.
            let storage = library == "openraft" && ["store", "sim"].contains(&module.as_str());
            // The simulator is a disk for the one, and a runtime for the other.
            let simulated = matches!(library, "redb" | "openraft") && module == "sim";
            if names && module != home && !storage && !simulated {
                broken.push(format!("{} names {library}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_are_one_thing_and_say_what() {
    let mut broken = Vec::new();
    for (path, text) in sources("src").into_iter().chain(sources("tests")) {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{} has {lines} lines", path.display()));
        }
        let begins_well = text.starts_with("//!") || path.ends_with("main.rs") || is_test(&path);
        if !begins_well {
            broken.push(format!("{} does not begin by saying what it is", path.display()));
        }
        for word in ["todo!(", "unimplemented!(", "dbg!("] {
            if code(&text).contains(word) && !path.ends_with("tidy.rs") {
                broken.push(format!("{} holds {word}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_test_file_is_run() {
    let main = fs::read_to_string(root().join("tests/it/main.rs")).unwrap();
    for path in sources("tests/it").keys() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let top = path.parent().unwrap().ends_with("it");
        if top && name != "main" {
            assert!(main.contains(&format!("mod {name};")), "{name} is in no test binary");
        }
    }
}

#[test]
fn the_changelog_names_this_version() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        changelog.contains("## [Unreleased]") || changelog.contains(&format!("## [{version}]")),
        "CHANGELOG.md has no heading for {version}"
    );
}
