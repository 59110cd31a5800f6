//! The logger of one container: a process that the shim starts, reads the container's output and
//! writes Docker's JSON lines.
//!
//! One thread, no runtime, fixed buffers: a node runs as many of these as containers. It ends when
//! both ends of the output are closed and outlives everything else, so it ignores requests to end.
//! A full disk costs lines, which are counted, and never holds up the container.

use super::{
    log_config::LogSetup,
    log_format::{self, Frame},
    signals,
};
use crate::types::Date;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fd::{AsFd, BorrowedFd, OwnedFd},
};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::{fd::FromRawFd, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The mode of a log, as Docker's: programs print what not every user of the node is to read.
const FILE_MODE: u32 = 0o640;

/// Longer lines are split, as Docker splits them: readers never need more memory than this a line.
const LINE_MAX: usize = 16 << 10;

/// How much is read at once: a quarter of a pipe, so that the container is never waited for.
const READ_MAX: usize = 16 << 10;

/// How far the dates of lines run ahead of a clock that was set back, at most: it is set by a second
/// or so all day long, and the lines of a log are told from one another by their dates, which rise
/// for that. A clock that was an hour or a year ahead is believed at once: dates that are wrong for
/// as long would be worse than a follower who sees lines twice.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// How much later a line is than the one before that was read at once with it.
const NEXT: Duration = Duration::from_nanos(1);

/// Marks the end of the log beside it, so that a follower knows that nothing more will come.
pub(super) const END_SUFFIX: &str = "end";

/// Reads the container's output from descriptors 3 and 4 until both are closed, and writes it to
/// the file that `args` names, as what lies beside it says. Descriptor 5 is closed when everything
/// is ready.
#[must_use]
pub fn logger_main(args: &[OsString]) -> ExitCode {
    let Some(path) = args.first() else { return ExitCode::FAILURE };
    signals::ignore(libc::SIGTERM);
    signals::ignore(libc::SIGINT);
    signals::ignore(libc::SIGPIPE);
    let [stdout, stderr, ready] = inherited();
    let mut writer = Writer::new(PathBuf::from(path));
    drop(ready);
    let sources = [Source::new(stdout, "stdout"), Source::new(stderr, "stderr")];
    let ended = copy(sources, &mut writer);
    writer.finish();
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(unsafe_code, reason = "descriptors that a parent left open have no owner yet")]
fn inherited() -> [OwnedFd; 3] {
    // SAFETY: the shim opens 3, 4 and 5 for this process, and nothing else was opened before.
    [3, 4, 5].map(|number| unsafe { OwnedFd::from_raw_fd(number) })
}

/// One of the two streams.
struct Source {
    descriptor: Option<OwnedFd>,
    name: &'static str,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
}

impl Source {
    fn new(descriptor: OwnedFd, name: &'static str) -> Self {
        Self { descriptor: Some(descriptor), name, line: Vec::new() }
    }

    /// Reads once; `batch` gets the lines that are complete.
    fn read(&mut self, buffer: &mut [u8], batch: &mut Batch<'_>) -> io::Result<()> {
        let Some(descriptor) = &self.descriptor else { return Ok(()) };
        let count = match rustix::io::read(descriptor, &mut *buffer) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(()),
            Err(rustix::io::Errno::IO) => 0,
            Err(error) => return Err(error.into()),
        };
        if count == 0 {
            self.descriptor = None;
            if !self.line.is_empty() {
                batch.add(self.name, &self.line, true);
                self.line.clear();
            }
            return Ok(());
        }
        for piece in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.push(text, complete, batch);
        }
        Ok(())
    }

    fn push(&mut self, mut text: &[u8], complete: bool, batch: &mut Batch<'_>) {
        while self.line.len() + text.len() > LINE_MAX {
            let (head, tail) = text.split_at(LINE_MAX - self.line.len());
            self.line.extend_from_slice(head);
            batch.add(self.name, &self.line, false);
            self.line.clear();
            text = tail;
        }
        self.line.extend_from_slice(text);
        if complete {
            batch.add(self.name, &self.line, true);
            self.line.clear();
        }
    }
}

/// Lines on their way to the file.
struct Batch<'a> {
    bytes: Vec<u8>,
    lines: u64,
    /// The date of the last line.
    last: Date,
    attributes: &'a str,
}

impl Batch<'_> {
    /// Lines that are read `now` come next: they bear later dates than those before. Returns one in
    /// between.
    fn begin(&mut self, now: Date) -> Date {
        let next = self.last + NEXT;
        self.last = if next > now + AHEAD_MAX { now } else { next.max(now) };
        self.last
    }

    /// Forgets the lines.
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(4 * LINE_MAX);
        self.lines = 0;
    }

    /// Adds a line. Each has a date of its own: a follower whose connection broke asks on from the
    /// date of the last line that came.
    fn add(&mut self, stream: &str, text: &[u8], complete: bool) {
        self.last = self.last + NEXT;
        let frame = Frame { stream, attributes: self.attributes, date: self.last };
        log_format::write_line(&mut self.bytes, frame, text, complete);
        self.lines += 1;
    }
}

fn copy(mut sources: [Source; 2], writer: &mut Writer) -> io::Result<()> {
    let mut buffer = vec![0_u8; READ_MAX];
    let attributes = std::mem::take(&mut writer.setup.attributes);
    let mut batch =
        Batch { bytes: Vec::new(), lines: 0, last: Date::EPOCH, attributes: &attributes };
    loop {
        let ready = wait(&sources)?;
        if ready == [false, false] && sources.iter().all(|source| source.descriptor.is_none()) {
            return Ok(());
        }
        // Of what is told of the lines before these.
        let date = batch.begin(now());
        for (source, ready) in sources.iter_mut().zip(ready) {
            if ready {
                source.read(&mut buffer, &mut batch)?;
            }
        }
        writer.write(&batch.bytes, batch.lines, date);
        batch.clear();
    }
}

/// Waits until a stream has something, its end included.
fn wait(sources: &[Source; 2]) -> io::Result<[bool; 2]> {
    let open: Vec<(usize, BorrowedFd<'_>)> = sources
        .iter()
        .enumerate()
        .filter_map(|(index, source)| Some((index, source.descriptor.as_ref()?.as_fd())))
        .collect();
    let mut ready = [false; 2];
    if open.is_empty() {
        return Ok(ready);
    }
    let mut polled: Vec<PollFd<'_>> =
        open.iter().map(|(_, fd)| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match rustix::event::poll(&mut polled, None::<&Timespec>) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    for ((index, _), polled) in open.iter().zip(&polled) {
        ready[*index] = !polled.revents().is_empty();
    }
    Ok(ready)
}

fn now() -> Date {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Date::EPOCH + since
}

/// Writes whole lines to the newest file, and puts a new one in its place when it is full.
pub(super) struct Writer {
    path: PathBuf,
    setup: LogSetup,
    file: Option<File>,
    size: u64,
    /// Lines that could not be written since the last one that could.
    dropped: u64,
}

impl Writer {
    pub(super) fn new(path: PathBuf) -> Self {
        let setup = LogSetup::read(&path);
        let mut writer = Self { path, setup, file: None, size: 0, dropped: 0 };
        if writer.setup.keep {
            // What fails here is tried again with the first line.
            drop(writer.open());
        }
        writer
    }

    fn open(&mut self) -> io::Result<()> {
        let file = File::options().append(true).create(true).mode(FILE_MODE).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Writes lines, or counts them as dropped; `date` is that of the note on those that were.
    pub(super) fn write(&mut self, bytes: &[u8], lines: u64, date: Date) {
        if lines == 0 || !self.setup.keep {
            return;
        }
        if self.try_write(bytes, date).is_err() {
            self.dropped = self.dropped.saturating_add(lines);
        }
    }

    fn try_write(&mut self, bytes: &[u8], date: Date) -> io::Result<()> {
        if self.size >= self.setup.size_max {
            self.rotate()?;
        }
        if self.file.is_none() {
            self.open()?;
        }
        if self.dropped > 0 {
            let mut note = Vec::new();
            let text = format!("midge dropped {} lines", self.dropped);
            log_format::write_line(&mut note, note_frame(date), text.as_bytes(), true);
            note.extend_from_slice(bytes);
            self.append(&note)?;
            self.dropped = 0;
            return Ok(());
        }
        self.append(bytes)
    }

    /// Writes all of it or, as far as readers see, nothing.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        match file.write_all(bytes) {
            Ok(()) => {
                self.size += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                Ok(())
            }
            Err(error) => {
                drop(file.set_len(self.size));
                Err(error)
            }
        }
    }

    /// Moves each file one number up; the oldest falls out.
    fn rotate(&mut self) -> io::Result<()> {
        if self.setup.files == 1 {
            // Not cut short but replaced: who reads the old one comes to its end.
            fs::remove_file(&self.path)?;
        }
        for number in (1..self.setup.files).rev() {
            let from = numbered(&self.path, number - 1);
            match fs::rename(from, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = None;
        self.size = 0;
        self.open()
    }

    fn finish(&mut self) {
        if self.dropped > 0 {
            let (dropped, date) = (self.dropped, now());
            self.dropped = 0;
            let mut note = Vec::new();
            let text = format!("midge dropped {dropped} lines");
            log_format::write_line(&mut note, note_frame(date), text.as_bytes(), true);
            // Nobody is left to tell that the disk is still full.
            drop(self.try_write(&note, date));
        }
        drop(File::create(self.path.with_extension(END_SUFFIX)));
    }
}

/// What a line of the logger's own is framed by.
fn note_frame(date: Date) -> Frame<'static> {
    Frame { stream: "stderr", attributes: "", date }
}

/// Returns the path of the `number`th file of a log, 0 being the newest.
pub(super) fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 0 { path.to_owned() } else { path.with_extension(format!("json.{number}")) }
}

#[cfg(test)]
mod tests;
