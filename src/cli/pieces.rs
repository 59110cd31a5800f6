//! Docker's multiplexed streams: pieces of output and error output over one connection.

use super::exit::CliError;

/// The header of one piece: which stream, and how long.
const HEADER: usize = 8;

/// The longest piece that is believed: the logger splits lines at 16 KiB, commands write 64 KiB.
const PIECE_MAX: usize = 1 << 20;

/// The stream of error output.
pub(crate) const STDERR: u8 = 2;

/// Puts the pieces of a multiplexed stream together.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    rest: Vec<u8>,
}

impl Pieces {
    /// Takes what came, and returns the pieces that are complete with it: which stream, and what.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, CliError> {
        self.rest.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(header) = self.rest[at..].first_chunk::<HEADER>() {
            let stream = header[0];
            let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > PIECE_MAX {
                return Err(CliError::failure("unreadable stream of the daemon"));
            }
            let Some(piece) = self.rest.get(at + HEADER..at + HEADER + length) else { break };
            pieces.push((stream, piece.to_vec()));
            at += HEADER + length;
        }
        self.rest.drain(..at);
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_together_however_they_are_cut() {
        let bytes = b"\x01\0\0\0\0\0\0\x02ab\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x01c";
        let whole = vec![(1, b"ab".to_vec()), (2, Vec::new()), (2, b"c".to_vec())];
        for cut in 1..bytes.len() {
            let mut pieces = Pieces::default();
            let mut found = Vec::new();
            for part in bytes.chunks(cut) {
                found.extend(pieces.feed(part).unwrap());
            }
            assert_eq!(found, whole, "{cut}");
        }
        let mut pieces = Pieces::default();
        assert!(pieces.feed(b"\x01\0\0\0\xff\xff\xff\xff").is_err());
    }
}
