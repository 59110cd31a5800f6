//! What a user mistypes, and how each is answered: by a sentence and an exit code.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::midge_binary;
use std::{
    fs,
    process::{Command, Stdio},
};

/// Runs midge and returns its exit code and what it said.
fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(midge_binary()).args(args).stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_mistake_has_its_exit_code_and_its_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let unknown_key = at("unknown.toml");
    fs::write(&unknown_key, "colour = \"red\"\n").unwrap();
    let no_toml = at("no.toml");
    fs::write(&no_toml, "= = =\n").unwrap();
    let nobody = format!("unix://{}", at("nobody.sock"));
    let data = at("data");
    let cases: [(&[&str], i32, &str); 9] = [
        (&["servce", "ls"], 2, "servce"),
        (&["service", "create"], 2, "IMAGE"),
        (&["service", "ls", "--nope"], 2, "--nope"),
        (&["daemon", "--nope"], 2, "--nope"),
        (&["daemon", "--data-dir", &data, "--config", &unknown_key], 64, "colour"),
        (&["daemon", "--data-dir", &data, "--config", &no_toml], 64, "no.toml"),
        (&["daemon", "--data-dir", &data, "--config", &at("missing.toml")], 64, "missing.toml"),
        (&["-H", &nobody, "service", "ls"], 3, "nobody.sock"),
        (&["-H", "tcp://10.0.0.1:1", "service", "ls"], 2, "unix://"),
    ];
    for (args, code, said) in cases {
        let (exit, error) = run(args);
        assert_eq!(exit, Some(code), "{args:?}: {error}");
        assert!(error.contains(said), "{args:?}: {error}");
    }
    assert!(!dir.path().join("data").exists(), "a daemon that is not started leaves nothing");
}
