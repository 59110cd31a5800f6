//! midge's own executable in the places where others start it: as logger by the shim, as init
//! inside a container.

use crate::util::disk;
use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The first argument that makes the executable a logger; the second is the path of the log.
pub const LOGGER_MODE: &str = "__logger";

/// The first argument that makes the executable an init; the container's command follows `--`.
pub const INIT_MODE: &str = "__init";

/// Puts the executable under a path that upgrades do not change, by a hard link or else a copy,
/// and returns that path. What runs already keeps the file it was started from.
///
/// # Errors
///
/// The executable cannot be read or the data directory not written.
pub fn install_helper(executable: &Path, data_dir: &Path) -> io::Result<PathBuf> {
    let path = data_dir.join("logger");
    fs::create_dir_all(data_dir)?;
    let own = fs::metadata(executable)?;
    if let Ok(old) = fs::metadata(&path) {
        let linked = (old.dev(), old.ino()) == (own.dev(), own.ino());
        if linked || (old.len() == own.len() && same_content(executable, &path)?) {
            return Ok(path);
        }
    }
    disk::replace_by(&path, |fresh| {
        if fs::hard_link(executable, fresh).is_err() {
            fs::copy(executable, fresh)?;
            fs::set_permissions(fresh, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    })?;
    Ok(path)
}

fn same_content(a: &Path, b: &Path) -> io::Result<bool> {
    use io::{BufRead, BufReader};
    let (mut a, mut b) = (BufReader::new(fs::File::open(a)?), BufReader::new(fs::File::open(b)?));
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        if left[..length] != right[..length] {
            return Ok(false);
        }
        a.consume(length);
        b.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_replaces_the_helper_under_the_same_path() {
        let dir = tempfile::tempdir().unwrap();
        let (executable, data) = (dir.path().join("midge"), dir.path().join("data"));
        fs::write(&executable, "one").unwrap();
        let path = install_helper(&executable, &data).unwrap();
        assert_eq!(install_helper(&executable, &data).unwrap(), path);
        fs::remove_file(&executable).unwrap();
        fs::write(&executable, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(install_helper(&executable, &data).unwrap(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    }
}
