//! The mounts of this process's mount namespace, as the kernel lists them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mounted {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Whether what is mounted below it shows at its peers, and the other way round.
    pub(super) is_shared: bool,
    /// Whether what is mounted below its master shows here.
    pub(super) is_slave: bool,
}

/// Reads the list.
pub(super) fn read() -> io::Result<Vec<Mounted>> {
    Ok(parse(&fs::read_to_string("/proc/self/mountinfo")?))
}

/// Returns the mount that a path lies on: the innermost, and of those the last.
pub(super) fn of<'a>(mounts: &'a [Mounted], path: &Path) -> Option<&'a Mounted> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.path));
    around.max_by_key(|mount| mount.path.components().count())
}

fn parse(text: &str) -> Vec<Mounted> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let path = fields.get(4)?;
        let optional: Vec<&str> =
            fields.iter().skip(6).copied().take_while(|field| *field != "-").collect();
        let has = |prefix: &str| optional.iter().any(|field| field.starts_with(prefix));
        Some(Mounted {
            path: PathBuf::from(plain(path)),
            is_shared: has("shared:"),
            is_slave: has("master:"),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Undoes how the kernel writes blanks and backslashes: as three octal digits.
fn plain(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_on_its_innermost_mount() {
        let text = "1 0 8:1 / / rw - ext4 a rw\n\
                    2 1 0:5 / /mnt/a\\040b rw,relatime shared:7 - tmpfs t rw\n\
                    3 1 0:6 / /mnt rw master:3 propagate_from:2 - tmpfs t rw\n";
        let mounts = parse(text);
        let at = |path: &str| of(&mounts, Path::new(path)).unwrap();
        assert_eq!(at("/mnt/a b/c").path, Path::new("/mnt/a b"));
        assert!(at("/mnt/a b/c").is_shared && !at("/mnt/a b/c").is_slave);
        assert!(at("/mnt/x").is_slave && !at("/mnt/x").is_shared);
        assert!(!at("/mntx").is_shared && at("/mntx").path == Path::new("/"));
        assert!(read().unwrap().iter().any(|mount| mount.path == Path::new("/proc")));
    }
}
