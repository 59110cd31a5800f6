//! Capabilities: their names.

/// All of them.
pub const CAPABILITY_ALL: &str = "ALL";

/// Every capability that Linux has (capabilities(7), up to 5.9; none was added since), in the order
/// of their numbers: each one's place is its bit in the kernel's masks.
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Returns the capabilities whose bits `mask` has, in the order of their numbers.
pub fn capabilities_in(mask: u64) -> impl Iterator<Item = &'static str> {
    (0..).zip(CAPABILITIES).filter(move |(bit, _)| mask & (1 << bit) != 0).map(|(_, name)| name)
}

/// Returns a capability's name in the one form that is stored: `net_admin` becomes
/// `CAP_NET_ADMIN`, `all` becomes `ALL`.
#[must_use]
pub fn capability_name(text: &str) -> String {
    let upper = text.trim().to_ascii_uppercase();
    if upper == CAPABILITY_ALL || upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    }
}

/// Tells whether Linux has the capability of this stored name, or it is [`CAPABILITY_ALL`].
#[must_use]
pub fn is_capability(name: &str) -> bool {
    name == CAPABILITY_ALL || CAPABILITIES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for (text, name) in [
            ("net_admin", "CAP_NET_ADMIN"),
            (" CAP_sys_time ", "CAP_SYS_TIME"),
            ("all", "ALL"),
            ("CAP_ALL", "CAP_ALL"),
        ] {
            assert_eq!(capability_name(text), name);
        }
        assert!(is_capability("ALL") && is_capability("CAP_CHOWN"));
        assert!(!is_capability("CAP_ALL") && !is_capability("CHOWN") && !is_capability(""));
        let mut names = CAPABILITIES;
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b), "none is there twice");
        assert_eq!(
            capabilities_in(1 << 21 | 1).collect::<Vec<_>>(),
            ["CAP_CHOWN", "CAP_SYS_ADMIN"]
        );
    }
}
