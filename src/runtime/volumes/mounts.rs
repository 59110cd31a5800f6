//! What the options of a volume mean, as the `local` driver of Docker has them: `type`, `device`
//! and `o`, handed to mount(2).

use crate::util::dns::Resolver;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::{collections::BTreeMap, ffi::CString, fs, io, net::IpAddr, path::Path};

/// The options that there are, and what each needs beside it.
const OPTIONS: [(&str, &[&str]); 3] =
    [("type", &["device"]), ("device", &["type"]), ("o", &["device", "type"])];

/// Options of `o` that are flags of mount(2): the flag, and whether the word sets or clears it.
const FLAGS: &[(&str, MountFlags, bool)] = &[
    ("ro", MountFlags::RDONLY, true),
    ("rw", MountFlags::RDONLY, false),
    ("nosuid", MountFlags::NOSUID, true),
    ("suid", MountFlags::NOSUID, false),
    ("nodev", MountFlags::NODEV, true),
    ("dev", MountFlags::NODEV, false),
    ("noexec", MountFlags::NOEXEC, true),
    ("exec", MountFlags::NOEXEC, false),
    ("sync", MountFlags::SYNCHRONOUS, true),
    ("async", MountFlags::SYNCHRONOUS, false),
    ("dirsync", MountFlags::DIRSYNC, true),
    ("noatime", MountFlags::NOATIME, true),
    ("atime", MountFlags::NOATIME, false),
    ("nodiratime", MountFlags::NODIRATIME, true),
    ("diratime", MountFlags::NODIRATIME, false),
    ("relatime", MountFlags::RELATIME, true),
    ("norelatime", MountFlags::RELATIME, false),
    ("strictatime", MountFlags::STRICTATIME, true),
    ("nostrictatime", MountFlags::STRICTATIME, false),
];

/// The options of a volume are wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VolumeOptionError {
    /// The driver has no such option.
    #[error("invalid option: {0:?}")]
    Unknown(String),
    /// One needs another.
    #[error("missing required option: {0:?}")]
    Missing(&'static str),
    /// Quotas are not for us to set.
    #[error("quota size requested but no quota support: give a tmpfs its size by o=size=...")]
    Size,
    /// A bind mount of no absolute path.
    #[error("invalid option: device {0:?} of a bind mount must be an absolute path")]
    Device(String),
    /// A word that asks for something other than a mount.
    #[error("invalid option: \"o={0}\" is not for a volume")]
    Word(String),
}

/// What is mounted on a volume's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountPlan {
    pub(super) kind: String,
    pub(super) device: String,
    flags: MountFlags,
    /// A bind mount, and whether with what is mounted below.
    bind: Option<bool>,
    data: Vec<String>,
}

impl MountPlan {
    /// Reads the options; none where there is nothing to mount.
    pub(super) fn of(
        options: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, VolumeOptionError> {
        for name in options.keys() {
            match name.as_str() {
                "type" | "device" | "o" => {}
                "size" => return Err(VolumeOptionError::Size),
                other => return Err(VolumeOptionError::Unknown(other.to_owned())),
            }
        }
        let given = |name: &str| options.get(name).filter(|value| !value.is_empty());
        for (name, needs) in OPTIONS {
            let missing = needs.iter().find(|needed| given(needed).is_none());
            if let (Some(_), Some(missing)) = (given(name), missing) {
                return Err(VolumeOptionError::Missing(missing));
            }
        }
        let (Some(kind), Some(device)) = (given("type"), given("device")) else { return Ok(None) };
        let mut plan = Self {
            kind: kind.clone(),
            device: device.clone(),
            flags: MountFlags::empty(),
            bind: (kind == "bind").then_some(false),
            data: Vec::new(),
        };
        let words = options.get("o").map_or("", String::as_str);
        words.split(',').filter(|word| !word.is_empty()).try_for_each(|word| plan.word(word))?;
        if plan.bind.is_some() && !plan.device.starts_with('/') {
            return Err(VolumeOptionError::Device(plan.device));
        }
        Ok(Some(plan))
    }

    fn word(&mut self, word: &str) -> Result<(), VolumeOptionError> {
        match word {
            "bind" => self.bind = Some(false),
            "rbind" => self.bind = Some(true),
            // What mount(8) takes for itself and the kernel does not know.
            "defaults" | "auto" | "noauto" | "nofail" | "_netdev" | "user" | "nouser" => {}
            "remount" | "move" => return Err(VolumeOptionError::Word(word.to_owned())),
            _ => match FLAGS.iter().find(|(name, ..)| *name == word) {
                Some((_, flag, set)) => self.flags.set(*flag, *set),
                None => self.data.push(word.to_owned()),
            },
        }
        Ok(())
    }

    /// Mounts it.
    pub(super) fn mount(&self, target: &Path) -> io::Result<()> {
        if let Some(recursive) = self.bind {
            if recursive {
                rustix::mount::mount_bind_recursive(&self.device, target)?;
            } else {
                rustix::mount::mount_bind(&self.device, target)?;
            }
            // Flags of a bind mount take a second call.
            if !self.flags.is_empty()
                && let Err(error) =
                    rustix::mount::mount_remount(target, self.flags | MountFlags::BIND, "")
            {
                unmount(target)?;
                return Err(error.into());
            }
        } else {
            let data = self.data(|host| Resolver::default().resolve_blocking(host, 0).ok())?;
            let data = CString::new(data)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "options hold a NUL"))?;
            let data = (!data.is_empty()).then_some(data.as_c_str());
            rustix::mount::mount(&self.device, target, &self.kind, self.flags, data)?;
        }
        // What is mounted here must not show in every namespace that was made from ours.
        rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE)?;
        Ok(())
    }

    /// Returns the options that are the file system's affair. The kernel resolves no names, so the
    /// server's is resolved for it.
    fn data(
        &self,
        resolve: impl Fn(&str) -> Option<Vec<std::net::SocketAddr>>,
    ) -> io::Result<String> {
        let network = matches!(self.kind.as_str(), "nfs" | "nfs4" | "cifs" | "smb3");
        let mut words = Vec::new();
        for word in &self.data {
            let host = word.strip_prefix("addr=").filter(|_| network);
            match host {
                Some(host) if host.parse::<IpAddr>().is_err() => {
                    let found = resolve(host).and_then(|found| found.first().copied());
                    let address = found.ok_or_else(|| {
                        let text = format!("the address of {host} is not known");
                        io::Error::new(io::ErrorKind::NotFound, text)
                    })?;
                    words.push(format!("addr={}", address.ip()));
                }
                _ => words.push(word.clone()),
            }
        }
        Ok(words.join(","))
    }
}

/// Unmounts what is on a folder, also while it is in use; nothing where nothing is.
pub(super) fn unmount(target: &Path) -> io::Result<()> {
    if !is_mounted(target)? {
        return Ok(());
    }
    Ok(rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

/// Tells whether something is mounted on a folder. Asks the kernel's table and not the folder,
/// whose server may be away.
pub(super) fn is_mounted(target: &Path) -> io::Result<bool> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let target = target.to_string_lossy();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.map(unescape).any(|point| point == target))
}

/// Reads the table's `\040` for a space.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).and_then(|three| std::str::from_utf8(three).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped.filter(|_| *byte == b'\\') {
            Some(escaped) => {
                out.push(escaped);
                rest = &tail[3..];
            }
            None => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(options: &[(&str, &str)]) -> Result<Option<MountPlan>, String> {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        MountPlan::of(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_mean_what_dockers_do() {
        assert_eq!(plan(&[]), Ok(None));
        let bind =
            plan(&[("type", "none"), ("o", "bind,ro"), ("device", "/srv")]).unwrap().unwrap();
        assert_eq!((bind.bind, bind.flags), (Some(false), MountFlags::RDONLY));
        let words = "addr=10.0.0.1,rw,nosuid,vers=4,defaults";
        let nfs = plan(&[("type", "nfs"), ("o", words), ("device", ":/x")]).unwrap().unwrap();
        assert_eq!((nfs.bind, nfs.flags), (None, MountFlags::NOSUID));
        assert_eq!(nfs.data(|_| None).unwrap(), "addr=10.0.0.1,vers=4");
    }

    #[test]
    fn a_servers_name_is_resolved_for_the_kernel() {
        let nfs = plan(&[("type", "nfs"), ("o", "addr=nas,vers=4"), ("device", ":/x")]);
        let nfs = nfs.unwrap().unwrap();
        let found = |_: &str| Some(vec![([10, 0, 0, 9], 0).into()]);
        assert_eq!(nfs.data(found).unwrap(), "addr=10.0.0.9,vers=4");
        let error = nfs.data(|_| None).unwrap_err();
        assert_eq!(error.to_string(), "the address of nas is not known");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (options, expected) in [
            (&[("type", "nfs")][..], "missing required option: \"device\""),
            (&[("device", "/x")], "missing required option: \"type\""),
            (&[("o", "bind")], "missing required option: \"device\""),
            (&[("speed", "9")], "invalid option: \"speed\""),
            (
                &[("type", "none"), ("o", "bind"), ("device", "x")],
                "invalid option: device \"x\" of a bind mount must be an absolute path",
            ),
            (
                &[("type", "none"), ("o", "remount"), ("device", "/x")],
                "invalid option: \"o=remount\" is not for a volume",
            ),
        ] {
            assert_eq!(plan(options).unwrap_err(), expected);
        }
        assert!(plan(&[("size", "10g")]).unwrap_err().starts_with("quota size requested"));
    }

    #[test]
    fn the_kernels_table_is_read() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/proc/self")).unwrap());
    }
}
