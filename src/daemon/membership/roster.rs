//! Who the managers are, as a manager last knew it, in a small file beside its log.
//!
//! What the log says counts only once a majority has agreed on how far it is committed; and managers
//! that were all off past the lives of their certificates take each other for a majority only by
//! knowing each other. So this is kept apart, and names nodes only.

use crate::{types::Roster, util::disk};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The largest file that is read: some thousand nodes that were demoted at 60 bytes each.
const SIZE_MAX: u64 = 1 << 20;

/// The file's name.
pub(crate) const FILE: &str = "managers.json";

fn path_under(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Reads it; what is missing or damaged knows nobody, which is what a manager that only joined knows
/// as well.
pub(crate) fn load(data_dir: &Path) -> Roster {
    let read = || -> io::Result<Roster> {
        let path = path_under(data_dir);
        if fs::metadata(&path)?.len() > SIZE_MAX {
            return Err(io::Error::other("it is larger than 1 MiB"));
        }
        Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
    };
    read().unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(%error, "cannot read who the managers were");
        }
        Roster::default()
    })
}

/// Writes it; on disk when it returns.
pub(crate) fn save(data_dir: &Path, roster: &Roster) -> io::Result<()> {
    let text = serde_json::to_string(roster)? + "\n";
    disk::replace(&path_under(data_dir), text.as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeId, Version};
    use std::time::Duration;

    #[test]
    fn what_is_written_is_read_and_nothing_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), Roster::default());
        let roster = Roster {
            as_of: Version { epoch: 2, index: 70 },
            managers: [NodeId::from_bits(1), NodeId::from_bits(2)].into(),
            demoted: [(NodeId::from_bits(3), crate::pki::BUILD_DATE)].into(),
            grace: Duration::from_secs(77),
            ..Roster::default()
        };
        save(dir.path(), &roster).unwrap();
        assert_eq!(load(dir.path()), roster);
        fs::write(path_under(dir.path()), "{").unwrap();
        assert_eq!(load(dir.path()), Roster::default());
    }
}
