//! The default seccomp profile: what Docker's allows, expressed as the OCI specification wants it.
//!
//! Everything is refused with EPERM but what the tables name, some of it by what capabilities a
//! container was granted.

use serde_json::{Value, json};

/// Calls that are allowed whatever their arguments.
const ALLOWED: &str = "
    _llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset
    chdir chmod chown chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
    clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range
    connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl
    epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve
    execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark
    fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr
    flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
    ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake
    futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid
    getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername
    getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid
    getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid
    getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
    ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2
    mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open
    openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64
    pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
    restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
    set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd
    signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64
    statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
    timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
    timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat
    uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write
    writev
";

/// Calls that only ARM has.
const ALLOWED_ARM: &str =
    "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";

/// Calls that only x86 has.
const ALLOWED_X86: &str = "arch_prctl modify_ldt";

/// The personalities a program may take: Linux, 16-bit short inodes, no address randomisation
/// (and both), and asking for the present one.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

/// The flags of clone(2) that make a namespace: `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`,
/// `NEWUSER`, `NEWPID`, `NEWNET`. A call with any of them is refused.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

/// clone3(2) hides its flags in memory where no filter sees them: it answers ENOSYS, so that the C
/// library falls back to clone(2).
const ENOSYS: u32 = 38;

/// EPERM.
const REFUSED: u32 = 1;

/// Sockets of the families below this one are let through. By its own, programs have the kernel
/// encipher: no container needs that, and its code has made root of anybody (CVE-2026-31431).
const AF_ALG: u64 = 38;

/// The later families that are let through: all but `AF_VSOCK` (40), whose sockets reach the
/// hypervisor's host. One by one: "greater" and "not equal" look at 64 bits, of which the kernel
/// takes the lower half, and a program would come by with one of the upper bits set. Programs for
/// 32-bit x86 can go by `socketcall`, where no filter sees the family; there it is AppArmor that
/// refuses `AF_ALG`.
const LATER_FAMILIES: [u64; 6] = [
    39, // AF_NFC
    41, // AF_KCM
    42, // AF_QIPCRTR
    43, // AF_SMC
    44, // AF_XDP
    45, // AF_MCTP
];

/// Calls that whoever has the capability may make. The kernel asks for the capability as well;
/// the filter keeps the code behind a call out of reach of everybody else.
const GRANTED: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount
         mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
         sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    (
        "CAP_SYS_PTRACE",
        "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    ),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Who may make namespaces.
const ADMIN: &str = "CAP_SYS_ADMIN";

/// Returns the profile for a processor, by the name the OCI image specification gives it, and for
/// what the container was granted.
pub(super) fn profile(architecture: &str, capabilities: &[&str]) -> Value {
    let (architectures, own): (&[&str], &str) = match architecture {
        "amd64" => (&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], ALLOWED_X86),
        "386" => (&["SCMP_ARCH_X86"], ALLOWED_X86),
        "arm64" => (&["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"], ALLOWED_ARM),
        "arm" => (&["SCMP_ARCH_ARM"], ALLOWED_ARM),
        _ => (&[], ""),
    };
    let names: Vec<&str> =
        ALLOWED.split_ascii_whitespace().chain(own.split_ascii_whitespace()).collect();
    let mut rules = vec![
        json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        with_argument("socket", AF_ALG, "SCMP_CMP_LT"),
    ];
    rules.extend(LATER_FAMILIES.map(|family| with_argument("socket", family, "SCMP_CMP_EQ")));
    for (capability, names) in GRANTED {
        if capabilities.contains(&capability) {
            let names: Vec<&str> = names.split_ascii_whitespace().collect();
            rules.push(json!({ "names": names, "action": "SCMP_ACT_ALLOW" }));
        }
    }
    if !capabilities.contains(&ADMIN) {
        rules.push(with_argument("clone", CLONE_NAMESPACES, "SCMP_CMP_MASKED_EQ"));
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    }
    rules.extend(PERSONALITIES.map(|value| with_argument("personality", value, "SCMP_CMP_EQ")));
    let mut profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": REFUSED,
        "syscalls": rules,
    });
    if !architectures.is_empty() {
        profile["architectures"] = json!(architectures);
    }
    profile
}

fn with_argument(name: &str, value: u64, operator: &str) -> Value {
    let argument = json!({ "index": 0, "value": value, "op": operator });
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument] })
}
