use super::*;
use crate::runtime::{
    LogLine, LogOptions, LogStream,
    folder::{Exit, Folder},
    logs,
};
use std::{io::Write, os::unix::fs::PermissionsExt as _};

fn source(name: &'static str) -> Source {
    Source { descriptor: None, name, line: Vec::new() }
}

fn batch() -> Batch<'static> {
    Batch { bytes: Vec::new(), lines: 0, last: Date::from_unix_seconds(1), attributes: "" }
}

#[test]
fn long_lines_are_split() {
    let (mut source, mut batch) = (source("stdout"), batch());
    source.push(&vec![b'a'; LINE_MAX + 10], false, &mut batch);
    assert_eq!((batch.lines, source.line.len()), (1, 10));
    source.push(b"end", true, &mut batch);
    let text = String::from_utf8(batch.bytes).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("{\"log\":\"aaa") && !lines[0].contains("\\n"));
    assert!(lines[1].contains("aaend\\n"), "{}", lines[1]);
}

#[test]
fn dates_rise_from_line_to_line_also_where_the_clock_is_set_back() {
    let (mut source, mut batch) = (source("stdout"), batch());
    let mut read = |seconds: u64| {
        let note = batch.begin(Date::from_unix_seconds(seconds));
        source.push(b"one", true, &mut batch);
        source.push(b"two", true, &mut batch);
        let lines = batch.bytes.split_inclusive(|byte| *byte == b'\n');
        let lines = lines.map(|line| log_format::read_line(line.trim_ascii_end()).unwrap().date);
        let dates = [vec![note], lines.collect()].concat();
        batch.clear();
        dates
    };
    let of = |seconds: u64, nanos: [u64; 3]| {
        nanos.map(|nanos| Date::from_unix_seconds(seconds) + Duration::from_nanos(nanos)).to_vec()
    };
    let year = 31_536_000;
    assert_eq!(read(2 * year), of(2 * year, [0, 1, 2]));
    assert_eq!(read(2 * year), of(2 * year, [3, 4, 5]));
    assert_eq!(read(2 * year - 30), of(2 * year, [6, 7, 8]), "a little");
    assert_eq!(read(2 * year + 1), of(2 * year + 1, [0, 1, 2]));
    assert_eq!(read(year), of(year, [0, 1, 2]), "a year");
    assert_eq!(read(year - 1), of(year, [3, 4, 5]));
}

#[test]
fn both_streams_are_copied_to_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.json");
    let (out, out_end) = rustix::pipe::pipe().unwrap();
    let (err, err_end) = rustix::pipe::pipe().unwrap();
    let mut writer = Writer::new(path.clone());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o007, 0, "others may not read it");
    let thread = std::thread::spawn(move || {
        copy([Source::new(out, "stdout"), Source::new(err, "stderr")], &mut writer).unwrap();
        writer.finish();
    });
    File::from(out_end).write_all(b"one\ntwo").unwrap();
    File::from(err_end).write_all(b"three\n").unwrap();
    thread.join().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    for (log, stream) in [("one", "stdout"), ("two", "stdout"), ("three", "stderr")] {
        let start = format!("{{\"log\":\"{log}\\n\",\"stream\":\"{stream}\",\"time\":\"");
        assert!(text.lines().any(|line| line.starts_with(&start)), "{text}");
    }
    assert!(path.with_extension(END_SUFFIX).exists());
}

fn line(text: &str, date: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let frame = Frame { stream: "stdout", attributes: "", date: Date::from_unix_seconds(date) };
    log_format::write_line(&mut out, frame, text.as_bytes(), true);
    out
}

/// A file of 10 pages stands for a full disk.
#[test]
fn a_full_disk_costs_lines_which_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    let size = std::ffi::CString::new("size=40960").unwrap();
    if rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, size.as_c_str()).is_err() {
        println!("skipped: needs root for a small file system");
        return;
    }
    let path = dir.path().join("log.json");
    let mut writer = Writer::new(path.clone());
    let date = Date::from_unix_seconds(1);
    let big = line(&"x".repeat(1000), 1);
    for _ in 0..50 {
        writer.write(&big, 1, date);
    }
    let dropped = writer.dropped;
    let text = fs::read_to_string(&path).unwrap();
    let kept = text.lines().filter(|line| line.ends_with("\"}")).count();
    fs::remove_file(&path).unwrap();
    writer.file = None;
    writer.write(&line("back", 1), 1, date);
    let text = fs::read_to_string(&path).unwrap_or_default();
    drop(writer);
    rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(dropped > 0 && kept > 0);
    assert_eq!(u64::try_from(kept).unwrap() + dropped, 50);
    assert!(text.contains(&format!("midge dropped {dropped} lines\\n")), "{text}");
    assert_eq!(text.lines().count(), 2);
}

fn read(folder: &Folder, options: LogOptions) -> Vec<String> {
    let lines = logs::read(folder.clone(), options);
    let text = |line: LogLine| String::from_utf8(line.line).unwrap().trim_end().to_owned();
    std::iter::from_fn(|| lines.recv_blocking().ok()).map(text).collect()
}

const ALL: LogOptions =
    LogOptions { stdout: true, stderr: true, follow: false, tail: None, since: None };

#[test]
fn readers_see_one_log_across_rotation() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path(), "a");
    folder.create(None, None).unwrap();
    let setup = LogSetup { size_max: 200, ..LogSetup::default() };
    setup.write(&folder.log()).unwrap();
    let mut writer = Writer::new(folder.log());
    let following = logs::read(folder.clone(), LogOptions { follow: true, ..ALL });
    let mut followed = Vec::new();
    for number in 0..20 {
        writer.write(&line(&number.to_string(), number), 1, Date::EPOCH);
        followed.push(following.recv_blocking().unwrap());
    }
    for (number, line) in followed.iter().enumerate() {
        assert_eq!(line.line, format!("{number}\n").as_bytes());
        assert_eq!(line.stream, LogStream::Stdout);
    }
    assert!(numbered(&folder.log(), 2).exists() && !numbered(&folder.log(), 3).exists());
    let all = read(&folder, ALL);
    assert!(all.len() < 20 && all.last().unwrap() == "19", "{all:?}");
    let tail = read(&folder, LogOptions { tail: Some(5), ..ALL });
    assert_eq!(tail, ["15", "16", "17", "18", "19"]);
    assert_eq!(read(&folder, LogOptions { tail: Some(0), ..ALL }), Vec::<String>::new());
    assert_eq!(read(&folder, LogOptions { tail: Some(100), ..ALL }), all);
    let since = Some(Date::from_unix_seconds(18));
    assert_eq!(read(&folder, LogOptions { since, ..ALL }), ["18", "19"]);
    assert!(read(&folder, LogOptions { stdout: false, ..ALL }).is_empty());
    writer.finish();
    assert!(following.recv_blocking().is_err());
}

#[test]
fn a_follower_ends_where_the_logger_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path(), "a");
    folder.create(None, None).unwrap();
    folder.write_exit(&Exit { code: 0, date: None, out_of_memory: false }).unwrap();
    fs::write(folder.log(), line("last", 1)).unwrap();
    assert_eq!(read(&folder, LogOptions { follow: true, ..ALL }), ["last"]);
}

#[test]
fn one_file_is_enough_and_lines_bear_what_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(dir.path(), "a");
    folder.create(None, None).unwrap();
    let attributes = r#"{"tag":"t","tier":"front"}"#.to_owned();
    LogSetup { keep: true, size_max: 300, files: 1, attributes }.write(&folder.log()).unwrap();
    let mut writer = Writer::new(folder.log());
    let (out, out_end) = rustix::pipe::pipe().unwrap();
    let following = logs::read(folder.clone(), LogOptions { follow: true, ..ALL });
    let mut out_end = File::from(out_end);
    let thread = std::thread::spawn(move || {
        let silent = Source { descriptor: None, name: "stderr", line: Vec::new() };
        copy([Source::new(out, "stdout"), silent], &mut writer).unwrap();
        writer.finish();
    });
    for number in 0..20 {
        writeln!(out_end, "{number}").unwrap();
        let line = following.recv_blocking().unwrap();
        assert_eq!(line.line, format!("{number}\n").as_bytes());
        assert_eq!((&*line.attributes["tag"], &*line.attributes["tier"]), ("t", "front"));
    }
    drop(out_end);
    thread.join().unwrap();
    assert!(!numbered(&folder.log(), 1).exists());
    assert!(fs::metadata(folder.log()).unwrap().len() < 500);
    assert_eq!(read(&folder, ALL).last().unwrap(), "19");
}

#[test]
fn what_is_not_kept_is_read_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.json");
    LogSetup { keep: false, ..LogSetup::default() }.write(&path).unwrap();
    let mut writer = Writer::new(path.clone());
    writer.write(&line("x", 1), 1, Date::EPOCH);
    writer.finish();
    assert!(!path.exists() && path.with_extension(END_SUFFIX).exists());
}
