//! How far an upload has come, for the person who waits.

use super::{human::decimal_size, output};
use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    time::{Duration, Instant},
};

/// How often the line is drawn anew: as often as an eye notices.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// How many characters the bar has.
const WIDTH: u64 = 40;

/// A file that tells how much of it was read, where a terminal shows it.
#[derive(Debug)]
pub(crate) struct Upload {
    file: File,
    total: u64,
    done: u64,
    shown: Option<Instant>,
    visible: bool,
}

impl Upload {
    /// Reads `file`; shows nothing where `quiet` says so, or standard error is no terminal.
    pub(crate) fn new(file: File, quiet: bool) -> Self {
        let total = file.metadata().map_or(0, |data| data.len());
        let visible = !quiet && total > 0 && io::stderr().is_terminal();
        Self { file, total, done: 0, shown: None, visible }
    }

    fn draw(&mut self, ended: bool) {
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= DRAW_EVERY);
        if !self.visible || !(due || ended) {
            return;
        }
        self.shown = Some(Instant::now());
        // The line gives way to what the daemon says next.
        let line = if ended { "\r\x1b[2K".to_owned() } else { line(self.done, self.total) };
        output::raw_note(line.as_bytes());
    }
}

fn line(done: u64, total: u64) -> String {
    let done = done.min(total);
    let filled = usize::try_from(u128::from(done) * u128::from(WIDTH) / u128::from(total.max(1)));
    let bar = "=".repeat(filled.unwrap_or(0)) + ">";
    let width = usize::try_from(WIDTH).unwrap_or(0) + 1;
    format!("\r\x1b[2KSending [{bar:<width$}] {}/{}", decimal_size(done), decimal_size(total))
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.done = self.done.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        self.draw(read == 0);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        assert!(line(0, 100).ends_with(&format!("[>{}] 0B/100B", " ".repeat(40))));
        assert!(line(50, 100).contains(&format!("[{}>{}]", "=".repeat(20), " ".repeat(20))));
        assert!(line(200, 100).ends_with(&format!("[{}>] 100B/100B", "=".repeat(40))));
        assert!(line(0, 0).ends_with("0B/0B"));
    }
}
