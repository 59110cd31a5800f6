//! The command line as a process, against a daemon that is a few lines of this file.

#![expect(clippy::unwrap_used, reason = "a helper of tests that panics is a test that fails")]

use crate::host::{midge_binary, which};
use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

/// Answers each request with what `answer` says about its path, until the test ends.
fn serve(path: &Path, answer: fn(&str) -> (u16, &'static str)) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            // A client that has gone is no failure.
            reply(stream, answer).ok();
        }
    });
}

fn reply(stream: UnixStream, answer: fn(&str) -> (u16, &'static str)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    let mut body = 0;
    while reader.read_line(&mut line)? > 2 {
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            body = length.trim().parse().unwrap();
        }
        line.clear();
    }
    std::io::copy(&mut reader.by_ref().take(body), &mut std::io::sink())?;
    let (status, body) = answer(first.split(' ').nth(1).unwrap_or(""));
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    reader.into_inner().write_all(format!("{head}{body}").as_bytes())
}

fn two_services(path: &str) -> (u16, &'static str) {
    match path.split('?').next().unwrap() {
        "/services" => {
            (200, r#"[{"ID":"x","Spec":{"Name":"web"}},{"ID":"y","Spec":{"Name":"db"}}]"#)
        }
        "/services/web" => (200, r#"{"ID":"x","Spec":{"Name":"web","Labels":{"a":"1"}}}"#),
        _ => (404, r#"{"message":"service wbe not found"}"#),
    }
}

fn midge(socket: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(midge_binary())
        .args(args)
        .env("MIDGE_HOST", format!("unix://{}", socket.display()))
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_name_that_is_not_there_is_told_with_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    serve(&socket, two_services);
    let output = midge(&socket, &["service", "rm", "wbe"], &[]);
    assert_eq!(output.status.code(), Some(1));
    // No colours: this is no terminal.
    assert_eq!(
        text(&output.stderr),
        "Error response from daemon: service wbe not found\nhint: did you mean web?\n"
    );
    let format = "{{range $k, $v := .Spec.Labels}}{{printf \"%s=%s\" $k $v}}{{end}}";
    let output = midge(&socket, &["service", "inspect", "-f", format, "web"], &[]);
    assert_eq!((text(&output.stdout), output.status.code()), ("a=1\n".to_owned(), Some(0)));
    let output = midge(&socket, &["service", "ls", "--format", "{{.Nmae}}"], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("template parsing error: template: :1:2: "));
}

#[test]
fn wrong_command_lines_and_a_missing_daemon_have_their_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none");
    for (args, code, says) in [
        (&["service", "ls", "--fliter", "a=b"][..], 2, "hint: did you mean --filter?"),
        (&["servcie", "ls"], 2, "hint: did you mean service?"),
        (&["service", "rm"], 2, "Run 'midge service rm --help' for more information"),
        (&["service", "ls"], 3, "hint: is the daemon running?"),
        (&["stack", "ls"], 2, "hint: midge has no stacks yet"),
        (&["run", "-it", "alpine"], 2, "hint: midge runs services"),
        (&["image", "push", "app"], 2, "hint: midge brings images to nodes"),
        (&["service", "create", "--secret", "a", "app"], 2, "hint: midge has no secrets yet"),
    ] {
        let output = midge(&socket, args, &[]);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(text(&output.stderr).contains(says), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    for args in
        [&["--help"][..], &["service", "create", "--help"], &["man"], &["completion", "zsh"]]
    {
        let output = midge(&socket, args, &[]);
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
    let pages = dir.path().join("man");
    assert!(midge(&socket, &["man", "--dir", pages.to_str().unwrap()], &[]).status.success());
    assert!(pages.join("midge-service-create.1").exists());
}

/// A service that waits for a node, and a node that cannot be drained.
fn nothing_moves(path: &str) -> (u16, &'static str) {
    match path.split('?').next().unwrap() {
        "/services/web" | "/services/x" => {
            (200, r#"{"ID":"x","Spec":{"Name":"web","Mode":{"Replicated":{"Replicas":1}}}}"#)
        }
        "/tasks" => (
            200,
            r#"[{"ID":"t","Name":"web.1","ServiceID":"x","Slot":1,"DesiredState":"running",
                "Status":{"State":"pending","Err":"no suitable node"}}]"#,
        ),
        "/nodes" => (200, "[]"),
        "/nodes/pi3" => (200, r#"{"ID":"pi3","Spec":{},"Status":{"State":"ready"}}"#),
        "/services/x/update" | "/nodes/pi3/update" => (200, "{}"),
        _ => (404, r#"{"message":"not found"}"#),
    }
}

#[test]
fn what_is_waited_for_goes_on_after_an_interruption() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    serve(&socket, nothing_moves);
    let interrupted = |args: &[&str], until: &str| {
        let mut child = Command::new(midge_binary())
            .args(args)
            .env("MIDGE_HOST", format!("unix://{}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut said: Vec<String> = Vec::new();
        while said.last().is_none_or(|line| !line.starts_with(until)) {
            said.push(lines.next().unwrap_or_else(|| panic!("{args:?} ended: {said:?}")));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        said.extend(lines);
        (said.join("\n"), child.wait().unwrap().code())
    };
    let (said, code) = interrupted(&["service", "rollback", "web"], "1/1: ");
    assert_eq!(
        said,
        "web\noverall progress: 0 out of 1 tasks\n1/1: no suitable node\n\
         Operation continuing in background.\nUse `midge service ps web` to check progress."
    );
    assert_eq!(code, Some(0), "as Docker's");
    let drain = ["node", "update", "--availability", "drain", "--wait", "pi3"];
    let (said, code) = interrupted(&drain, "draining");
    assert_eq!(
        said,
        "pi3\ndraining pi3: 1 of 1 tasks left\n\
         Operation continuing in background.\nUse `midge node ps pi3` to check progress."
    );
    assert_eq!(code, Some(130), "what is to follow on an empty node must not");
    let timed = [&drain[..], &["--timeout", "1ms"]].concat();
    let output = midge(&socket, &timed, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "pi3 is not drained after 1ms:\n  web.1: pending\n\
         hint: the drain goes on; midge node ps pi3 shows what is left there\n"
    );
    let not = midge(&socket, &["node", "update", "--availability", "pause", "--wait", "pi3"], &[]);
    assert_eq!(not.status.code(), Some(2));
}

#[test]
fn shells_complete_the_names_of_the_moment() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    serve(&socket, two_services);
    let complete = |words: &[&str]| {
        let last = (words.len() - 1).to_string();
        let env =
            [("MIDGE_COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", &last), ("_CLAP_IFS", "\n")];
        text(&midge(&socket, &[&["--"], words].concat(), &env).stdout)
    };
    let names = complete(&["midge", "service", "rm", ""]);
    assert!(names.lines().any(|l| l == "web") && names.lines().any(|l| l == "db"), "{names}");
    assert_eq!(complete(&["midge", "service", "logs", "w"]).trim(), "web");
    assert_eq!(complete(&["midge", "serv"]).trim(), "service");
}

/// A command that prints more than a pipe holds, and ends with 5.
fn a_talkative_command(path: &str) -> (u16, &'static str) {
    static OUTPUT: LazyLock<String> = LazyLock::new(|| "words\n".repeat(100_000));
    match path {
        "/containers/web.1/exec" => (201, r#"{"Id":"e1"}"#),
        "/exec/e1/start" => (101, &OUTPUT),
        "/exec/e1/json" => (200, r#"{"Running":false,"ExitCode":5}"#),
        _ => (200, "{}"),
    }
}

/// Runs a line of shell on a terminal, where `midge` is the program under test; types `typed` once
/// it has said `until`. Returns what the terminal showed. `None` where there is no `script`.
fn on_a_terminal(socket: &Path, line: &str, until: &str, typed: &[u8]) -> Option<String> {
    let script = which("script")?;
    let program = midge_binary();
    let line = line.replace("midge", &program.display().to_string());
    let mut child = Command::new(script)
        .args(["-qec", &line, "/dev/null"])
        .env("MIDGE_HOST", format!("unix://{}", socket.display()))
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It stays open: a terminal's input does not end by itself.
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
    let mut is_typed = false;
    loop {
        let n = output.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        shown.extend_from_slice(&buffer[..n]);
        if !is_typed && String::from_utf8_lossy(&shown).contains(until) {
            input.write_all(typed).unwrap();
            is_typed = true;
        }
    }
    child.wait().unwrap();
    Some(String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_terminal_is_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    serve(&socket, a_talkative_command);
    let line = "{ midge exec -it web.1 cat; echo \"ended with $?\" >&2; } | true; stty -a";
    let Some(shown) = on_a_terminal(&socket, line, "never", b"") else { return };
    assert!(shown.contains("ended with 5"), "{shown}");
    assert!(shown.contains(" icanon") && shown.contains(" echo "), "{shown}");
    let file = dir.path().join("backup");
    let line = format!(
        "trap : INT; midge cluster backup {}; echo \"ended with $?\"; stty -a",
        file.display()
    );
    let shown = on_a_terminal(&socket, &line, "Enter the passphrase: ", b"\x03").unwrap();
    assert!(shown.contains("interrupted") && shown.contains("ended with 130"), "{shown}");
    assert!(shown.contains(" echo "), "{shown}");
    assert!(!file.exists());
}

#[test]
fn words_that_are_no_text_are_refused() {
    let words = [OsStr::new("service"), OsStr::new("rm"), OsStr::from_bytes(b"a\xff")];
    let output = Command::new(midge_binary()).args(words).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}
