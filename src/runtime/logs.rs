//! Reads a container's log: across rotated files, from the end, and on as it grows.
//!
//! Knows the files that the logger writes; must not know containerd. Runs on a thread of the
//! blocking pool, since files have no readiness.

use super::{
    LogLine, LogStream,
    folder::Folder,
    log_config::LogSetup,
    log_format,
    logger::{END_SUFFIX, numbered},
};
use crate::types::Date;
use async_channel::{Receiver, Sender};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

/// What a reader of a log wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Go on as the log grows, until the container has ended.
    pub follow: bool,
    /// Only so many of the last lines; none is all of them.
    pub tail: Option<usize>,
    /// Only lines from then on.
    pub since: Option<Date>,
}

/// Lines on their way to a reader: a slow one holds at most this many, each at most 16 KiB, and
/// makes the log wait for it.
const QUEUE: usize = 32;

/// How often a followed log is looked at. A person does not notice, and a look is one `stat`.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long after its container's end a log may still grow where its logger was killed and could
/// not mark the end.
const END_LIMIT: Duration = Duration::from_secs(2);

/// A line in a file is at most 16 KiB of text, each byte of it written as six, its attributes of
/// at most 16 KiB, and its frame.
/// Longer ones are not the logger's, and skipped.
const STORED_LINE_MAX: usize = 128 << 10;

/// How much of a file is read at once.
const READ_MAX: usize = 64 << 10;

/// Starts to read the log of the container in `folder`.
pub(super) fn read(folder: Folder, options: LogOptions) -> Receiver<LogLine> {
    let (sender, receiver) = async_channel::bounded(QUEUE);
    // A thread of its own: a follower may stay for days and would use up the blocking pool.
    let thread = std::thread::Builder::new().name("log reader".to_owned());
    let reader = Reader { path: folder.log(), folder, options, sender, partial: Vec::new() };
    let started = thread.spawn(move || {
        if let Err(error) = reader.run() {
            tracing::warn!(%error, "cannot read a container's log");
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "cannot start a thread to read a container's log");
    }
    receiver
}

struct Reader {
    path: PathBuf,
    folder: Folder,
    options: LogOptions,
    sender: Sender<LogLine>,
    /// The beginning of a line whose end is not yet in the file.
    partial: Vec<u8>,
}

/// The reader has gone away.
struct Gone;

impl Reader {
    fn run(mut self) -> io::Result<()> {
        let mut files = self.files()?;
        if let Some(tail) = self.options.tail {
            self.keep_tail(&mut files, tail)?;
        }
        let mut current = None;
        for mut file in files {
            if self.drain(&mut file)?.is_err() {
                return Ok(());
            }
            current = Some(file);
        }
        if self.options.follow { self.follow(current) } else { Ok(()) }
    }

    /// Opens the files there are, oldest first. A rotation meanwhile may show one twice.
    fn files(&self) -> io::Result<VecDeque<File>> {
        let mut files: VecDeque<File> = VecDeque::new();
        for number in 0..LogSetup::read(&self.path).files {
            let Some(file) = optional(File::open(numbered(&self.path, number)))? else { continue };
            let known = files.iter().any(|known| same(known, &file));
            if !known {
                files.push_front(file);
            }
        }
        Ok(files)
    }

    /// Sets the files to where the last `tail` wanted lines begin.
    fn keep_tail(&self, files: &mut VecDeque<File>, tail: usize) -> io::Result<()> {
        let mut missing = tail;
        for index in (0..files.len()).rev() {
            if missing == 0 {
                files[index].seek(SeekFrom::End(0))?;
                continue;
            }
            let offsets = self.wanted_offsets(&mut files[index], missing)?;
            missing -= offsets.len();
            if let (0, Some(first)) = (missing, offsets.front()) {
                files[index].seek(SeekFrom::Start(*first))?;
            } else {
                files[index].seek(SeekFrom::Start(0))?;
            }
        }
        Ok(())
    }

    /// Returns where the last `count` wanted lines of a file begin.
    fn wanted_offsets(&self, file: &mut File, count: usize) -> io::Result<VecDeque<u64>> {
        let mut offsets = VecDeque::new();
        let mut offset = 0;
        let mut lines = Lines::default();
        let mut buffer = vec![0; READ_MAX];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(offsets);
            }
            lines.feed(&buffer[..read], |line, length| {
                if self.parse(line).is_some() {
                    offsets.push_back(offset);
                    if offsets.len() > count {
                        offsets.pop_front();
                    }
                }
                offset += length;
            });
        }
    }

    /// Parses a line; none where the reader does not want it.
    fn parse(&self, text: &[u8]) -> Option<LogLine> {
        let line = log_format::read_line(text)?;
        let wanted = match line.stream {
            LogStream::Stdout => self.options.stdout,
            LogStream::Stderr => self.options.stderr,
        };
        let late_enough = self.options.since.is_none_or(|since| line.date >= since);
        (wanted && late_enough).then_some(line)
    }

    /// Sends what a file has left.
    fn drain(&mut self, file: &mut File) -> io::Result<Result<(), Gone>> {
        let mut buffer = vec![0; READ_MAX];
        let mut lines = Lines { partial: std::mem::take(&mut self.partial), skip: 0 };
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                self.partial = lines.partial;
                return Ok(Ok(()));
            }
            let mut gone = false;
            lines.feed(&buffer[..read], |line, _| {
                if let Some(line) = self.parse(line).filter(|_| !gone) {
                    gone = self.sender.send_blocking(line).is_err();
                }
            });
            if gone {
                return Ok(Err(Gone));
            }
        }
    }

    /// Reads on until the container has ended and everything of it was read.
    fn follow(mut self, mut current: Option<File>) -> io::Result<()> {
        let mut quiet_since = None;
        loop {
            // Asked before the files are: what was written before the end is then seen.
            let ended =
                self.path.with_extension(END_SUFFIX).exists() || !self.folder.path().exists();
            let exited = self.folder.read_exit().is_some();
            let before = position(&mut current)?;
            if self.catch_up(&mut current)?.is_err() || ended || self.sender.is_closed() {
                return Ok(());
            }
            if position(&mut current)? != before || !exited {
                quiet_since = None;
            }
            let since = *quiet_since.get_or_insert_with(Instant::now);
            if exited && since.elapsed() > END_LIMIT {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Reads to the end of the newest file, through the files that were rotated meanwhile.
    fn catch_up(&mut self, current: &mut Option<File>) -> io::Result<Result<(), Gone>> {
        loop {
            if let Some(file) = current {
                let newest = optional(File::open(&self.path))?;
                let done = newest.as_ref().is_none_or(|newest| same(newest, file));
                // After the look at the path: nothing is written to a file that lost its name.
                if let Err(gone) = self.drain(file)? {
                    return Ok(Err(gone));
                }
                if done {
                    return Ok(Ok(()));
                }
            }
            let files = self.files()?;
            let at = current.as_ref().and_then(|c| files.iter().position(|file| same(file, c)));
            let next = at.map_or(0, |at| at + 1);
            self.partial.clear();
            match files.into_iter().nth(next) {
                Some(file) => *current = Some(file),
                None => return Ok(Ok(())),
            }
        }
    }
}

/// Splits what is read into lines.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
    /// How much of a line that is too long was dropped.
    skip: u64,
}

impl Lines {
    /// Calls `each` with every complete line and its length in the file.
    fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8], u64)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if self.partial.len() + piece.len() > STORED_LINE_MAX {
                self.skip += length(&self.partial);
                self.partial.clear();
            }
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let whole = if self.skip > 0 { &[][..] } else { &self.partial };
                each(whole, length(&self.partial) + self.skip);
                self.partial.clear();
                self.skip = 0;
            }
        }
    }
}

fn position(file: &mut Option<File>) -> io::Result<u64> {
    file.as_mut().map_or(Ok(0), File::stream_position)
}

fn same(a: &File, b: &File) -> bool {
    let id = |file: &File| file.metadata().map(|data| (data.dev(), data.ino())).ok();
    id(a).is_some() && id(a) == id(b)
}

fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
