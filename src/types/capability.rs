//! Capabilities: their names.

/// All of them.
pub const CAPABILITY_ALL: &str = "ALL";

/// Every capability that Linux has (capabilities(7), up to 5.9; none was added since), without
/// the `CAP_` before it.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

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
    let bare = name.strip_prefix("CAP_");
    name == CAPABILITY_ALL || bare.is_some_and(|bare| CAPABILITIES.contains(&bare))
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
        assert!(CAPABILITIES.is_sorted());
    }
}
