//! The processes of a container, as `ps` would list them.
//!
//! Reads `/proc` itself, since a node need not have a `ps`: knows its formats and the columns that
//! people ask for; what it does not know it refuses.

use super::{cgroups, engine::Runtime, exec::ExecError};
use crate::{
    types::{ProcessTable, TaskId},
    util::unblock::unblock,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Ticks a second that `/proc` counts in, on every processor that midge runs on.
const TICKS: u64 = 100;

/// How many processes are listed: more than the largest limit that anybody sets on a container.
const PROCESSES_MAX: usize = 32_768;

/// How deep the groups of a container may lie in one another.
const GROUPS_DEPTH: usize = 16;

/// How much of a command line is shown.
const COMMAND_MAX: usize = 4_096;

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    User,
    Uid,
    Pid,
    Parent,
    Share,
    CpuPercent,
    MemoryPercent,
    VirtualSize,
    Resident,
    Terminal,
    State,
    Start,
    Time,
    Elapsed,
    Name,
    Command,
    Threads,
    Nice,
    Priority,
}

/// The names that `-o` takes, with the headings of `ps`.
const NAMES: &[(&str, &str, Column)] = &[
    ("user", "USER", Column::User),
    ("euser", "EUSER", Column::User),
    ("uid", "UID", Column::Uid),
    ("pid", "PID", Column::Pid),
    ("ppid", "PPID", Column::Parent),
    ("c", "C", Column::Share),
    ("pcpu", "%CPU", Column::CpuPercent),
    ("%cpu", "%CPU", Column::CpuPercent),
    ("pmem", "%MEM", Column::MemoryPercent),
    ("%mem", "%MEM", Column::MemoryPercent),
    ("vsz", "VSZ", Column::VirtualSize),
    ("rss", "RSS", Column::Resident),
    ("tty", "TT", Column::Terminal),
    ("tt", "TT", Column::Terminal),
    ("tname", "TTY", Column::Terminal),
    ("stat", "STAT", Column::State),
    ("s", "S", Column::State),
    ("state", "S", Column::State),
    ("stime", "STIME", Column::Start),
    ("start", "STARTED", Column::Start),
    ("time", "TIME", Column::Time),
    ("cputime", "TIME", Column::Time),
    ("etime", "ELAPSED", Column::Elapsed),
    ("comm", "COMMAND", Column::Name),
    ("ucmd", "CMD", Column::Name),
    ("args", "COMMAND", Column::Command),
    ("command", "COMMAND", Column::Command),
    ("cmd", "CMD", Column::Command),
    ("nlwp", "NLWP", Column::Threads),
    ("thcount", "THCNT", Column::Threads),
    ("ni", "NI", Column::Nice),
    ("nice", "NI", Column::Nice),
    ("pri", "PRI", Column::Priority),
];

/// The columns of `ps -ef`.
const FULL: &[(&str, Column)] = &[
    ("UID", Column::User),
    ("PID", Column::Pid),
    ("PPID", Column::Parent),
    ("C", Column::Share),
    ("STIME", Column::Start),
    ("TTY", Column::Terminal),
    ("TIME", Column::Time),
    ("CMD", Column::Command),
];

/// The columns of `ps aux`.
const USERS: &[(&str, Column)] = &[
    ("USER", Column::User),
    ("PID", Column::Pid),
    ("%CPU", Column::CpuPercent),
    ("%MEM", Column::MemoryPercent),
    ("VSZ", Column::VirtualSize),
    ("RSS", Column::Resident),
    ("TTY", Column::Terminal),
    ("STAT", Column::State),
    ("START", Column::Start),
    ("TIME", Column::Time),
    ("COMMAND", Column::Command),
];

impl Runtime {
    /// Lists the processes of the task's container; `options` are those of `ps`, empty for `-ef`.
    ///
    /// # Errors
    ///
    /// The container does not run, or an option is not known: the inner error says which.
    pub async fn processes(
        &self,
        task: &TaskId,
        options: &str,
    ) -> Result<Result<ProcessTable, String>, ExecError> {
        let columns = match columns(options) {
            Ok(columns) => columns,
            Err(refused) => return Ok(Err(refused)),
        };
        let (_, group) = self.group(task).await?;
        let read = unblock(move || {
            let proc = Path::new("/proc");
            let pids = members(Path::new(cgroups::ROOT), &group);
            let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
            let node = Node::read(proc, &passwd);
            table(proc, &node, &pids, &columns)
        });
        Ok(Ok(read.await))
    }
}

type Columns = Vec<(String, Column)>;

/// Reads the options of `ps`.
fn columns(options: &str) -> Result<Columns, String> {
    let fixed = |known: &[(&str, Column)]| -> Columns {
        known.iter().map(|(title, column)| ((*title).to_owned(), *column)).collect()
    };
    let refuse = |word: &str| {
        Err(format!(
            "ps option {word:?} is not supported: midge lists processes itself, and knows -ef, \
             aux, and -o with {}",
            NAMES.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
        ))
    };
    let mut chosen: Columns = Vec::new();
    let mut format = None;
    let mut words = options.split_ascii_whitespace();
    while let Some(word) = words.next() {
        let letters = word.strip_prefix('-').unwrap_or(word);
        let (letters, list) = match letters.find('o') {
            Some(at) if !word.starts_with("--") => {
                let list = &letters[at + 1..];
                let list = if list.is_empty() { words.next().unwrap_or_default() } else { list };
                (&letters[..at], Some(list))
            }
            _ => (letters, None),
        };
        for letter in letters.chars() {
            match letter {
                // Which processes: always those of the container.
                'e' | 'a' | 'x' | 'A' | 'w' => {}
                'f' => format = Some(FULL),
                'u' => format = Some(USERS),
                _ => return refuse(word),
            }
        }
        for item in list.iter().flat_map(|list| list.split(',')) {
            let (name, title) = item.split_once('=').unwrap_or((item, ""));
            let Some((_, known, column)) = NAMES.iter().find(|(known, ..)| *known == name) else {
                return refuse(item);
            };
            let title = if title.is_empty() { *known } else { title };
            chosen.push((title.to_owned(), *column));
        }
    }
    Ok(if chosen.is_empty() { fixed(format.unwrap_or(FULL)) } else { chosen })
}

/// Lists the processes of a group and of those inside it.
fn members(root: &Path, group: &str) -> Vec<u32> {
    let group = group.trim_start_matches('/');
    let places = [root.join(group), root.join("pids").join(group), root.join("memory").join(group)];
    let place = places.iter().find(|place| place.join("cgroup.procs").exists());
    let mut pids = Vec::new();
    let mut groups: Vec<(PathBuf, usize)> =
        place.map(|place| (place.clone(), 0)).into_iter().collect();
    while let Some((group, depth)) = groups.pop() {
        let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        if depth < GROUPS_DEPTH {
            let inner = fs::read_dir(&group).into_iter().flatten().flatten();
            let inner = inner.map(|entry| entry.path()).filter(|path| path.is_dir());
            groups.extend(inner.map(|path| (path, depth + 1)));
        }
    }
    pids.sort_unstable();
    pids.truncate(PROCESSES_MAX);
    pids
}

/// What of the node is needed to judge its processes.
#[derive(Debug)]
struct Node {
    /// Seconds since it was started.
    uptime: u64,
    /// Seconds since 1970 at that moment.
    booted: u64,
    now: u64,
    memory_kib: u64,
    page_kib: u64,
    users: BTreeMap<u32, String>,
}

impl Node {
    fn read(proc: &Path, passwd: &str) -> Self {
        let text = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
        let (stat, memory, uptime) = (text("stat"), text("meminfo"), text("uptime"));
        let number = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_default()
        };
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            uptime: uptime.split('.').next().and_then(|n| n.parse().ok()).unwrap_or_default(),
            booted: number(&stat, "btime "),
            now: now.as_secs(),
            memory_kib: number(&memory, "MemTotal:"),
            page_kib: u64::try_from(rustix::param::page_size()).unwrap_or(4_096) / 1_024,
            // The first of a number counts.
            users: passwd.lines().rev().filter_map(user).collect(),
        }
    }
}

/// One process.
#[derive(Debug, Default)]
struct Process {
    pid: u32,
    parent: u64,
    uid: u32,
    name: String,
    command: String,
    state: String,
    terminal: u64,
    ticks: u64,
    started: u64,
    threads: u64,
    nice: i64,
    priority: i64,
    virtual_kib: u64,
    resident_kib: u64,
}

fn table(proc: &Path, node: &Node, pids: &[u32], columns: &Columns) -> ProcessTable {
    // Those that ended meanwhile are left out.
    let processes = pids.iter().filter_map(|pid| read(proc, *pid, node));
    let row = |process: Process| columns.iter().map(|(_, c)| cell(*c, &process, node)).collect();
    ProcessTable {
        titles: columns.iter().map(|(title, _)| title.clone()).collect(),
        rows: processes.map(row).collect(),
    }
}

fn read(proc: &Path, pid: u32, node: &Node) -> Option<Process> {
    let folder = proc.join(pid.to_string());
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let line = fs::read(folder.join("cmdline")).unwrap_or_default();
    parse(pid, &stat, &status, &line, node.page_kib)
}

/// Reads a process from its files. Its name may hold anything, so what follows is found from the
/// end of it.
fn parse(pid: u32, stat: &str, status: &str, line: &[u8], page_kib: u64) -> Option<Process> {
    let name = stat.get(stat.find('(')? + 1..stat.rfind(')')?)?.to_owned();
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    // Numbered as in proc(5), where the state is the third.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or_default();
    let number = |at: usize| field(at).parse::<u64>().unwrap_or_default();
    let signed = |at: usize| field(at).parse::<i64>().unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uid = uid.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let line = &line[..line.len().min(COMMAND_MAX)];
    let command = String::from_utf8_lossy(line).replace('\0', " ").trim_end().to_owned();
    let mut state = field(3).to_owned();
    if signed(19) < 0 {
        state.push('<');
    } else if signed(19) > 0 {
        state.push('N');
    }
    if field(6) == pid.to_string() {
        state.push('s');
    }
    if number(20) > 1 {
        state.push('l');
    }
    if field(8) == field(5) && field(8) != "-1" {
        state.push('+');
    }
    Some(Process {
        pid,
        parent: number(4),
        uid,
        command: if command.is_empty() { format!("[{name}]") } else { command },
        name,
        state,
        terminal: number(7),
        ticks: number(14) + number(15),
        started: number(22),
        threads: number(20),
        nice: signed(19),
        priority: signed(18),
        virtual_kib: number(23) / 1_024,
        resident_kib: number(24).saturating_mul(page_kib),
    })
}

fn cell(column: Column, process: &Process, node: &Node) -> String {
    let lived = node.uptime.saturating_sub(process.started / TICKS);
    let busy = process.ticks / TICKS;
    // In thousandths, of one processor.
    let share = (process.ticks * 1_000 / TICKS).checked_div(lived).unwrap_or_default();
    let percent = |thousandths: u64| format!("{}.{}", thousandths / 10, thousandths % 10);
    match column {
        Column::User => {
            node.users.get(&process.uid).cloned().unwrap_or_else(|| process.uid.to_string())
        }
        Column::Uid => process.uid.to_string(),
        Column::Pid => process.pid.to_string(),
        Column::Parent => process.parent.to_string(),
        Column::Share => (share / 10).min(99).to_string(),
        Column::CpuPercent => percent(share),
        Column::MemoryPercent => {
            percent((process.resident_kib * 1_000).checked_div(node.memory_kib).unwrap_or_default())
        }
        Column::VirtualSize => process.virtual_kib.to_string(),
        Column::Resident => process.resident_kib.to_string(),
        Column::Terminal => terminal(process.terminal),
        Column::State => process.state.clone(),
        Column::Start => start(node.booted + process.started / TICKS, node.now),
        Column::Time => clock(busy),
        Column::Elapsed => elapsed(lived),
        Column::Name => process.name.clone(),
        Column::Command => process.command.clone(),
        Column::Threads => process.threads.to_string(),
        Column::Nice => process.nice.to_string(),
        Column::Priority => (39 - process.priority).to_string(),
    }
}

/// Names a terminal by its device number.
fn terminal(device: u64) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    match major {
        0 => "?".to_owned(),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        _ => format!("{major}/{minor}"),
    }
}

/// The time of day of what was started less than a day ago, else the date; of universal time.
fn start(at: u64, now: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = crate::types::Date::from_unix_seconds(at).to_string();
    if now.saturating_sub(at) < 86_400 {
        return text.get(11..16).unwrap_or_default().to_owned();
    }
    let part = |from: usize| text.get(from..from + 2).unwrap_or_default();
    let month = part(5).parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    format!("{}{}", month.copied().unwrap_or_default(), part(8))
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn elapsed(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    match (days, rest / 3_600) {
        (0, 0) => format!("{:02}:{:02}", rest / 60, rest % 60),
        (0, _) => clock(rest),
        (days, _) => format!("{days}-{}", clock(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles(options: &str) -> String {
        match columns(options) {
            Ok(columns) => {
                columns.into_iter().map(|(title, _)| title).collect::<Vec<_>>().join(" ")
            }
            Err(refused) => refused.split(':').next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn the_usual_options_are_known_and_others_refused() {
        let full = "UID PID PPID C STIME TTY TIME CMD";
        let users = "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND";
        for (options, expected) in [
            ("", full),
            ("-ef", full),
            ("-e -f", full),
            ("aux", users),
            ("-aux", users),
            ("-o pid,comm", "PID COMMAND"),
            ("-eo pid,ppid -o args", "PID PPID COMMAND"),
            ("axo pid=NUMBER,%cpu", "NUMBER %CPU"),
            ("-Z", "ps option \"-Z\" is not supported"),
            ("--forest", "ps option \"--forest\" is not supported"),
            ("-o pid,wchan", "ps option \"wchan\" is not supported"),
            ("-eo", "ps option \"\" is not supported"),
        ] {
            assert_eq!(titles(options), expected, "{options}");
        }
    }

    fn node() -> Node {
        Node {
            uptime: 1_000,
            booted: 1_700_000_000,
            now: 1_700_001_000,
            memory_kib: 10_000,
            page_kib: 4,
            users: [(33, "web".to_owned())].into(),
        }
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let stat = "42 (a) b) S 1 42 42 34816 42 4194304 1 0 0 0 150 50 0 0 20 0 3 0 80000 \
                    2048000 100 1";
        let status = "Name:\ta) b\nUid:\t0\t33\t0\t0\n";
        let process = parse(42, stat, status, b"a\0--flag\0", 4).unwrap();
        let columns = columns("-eo user,uid,pid,ppid,c,pcpu,pmem,vsz,rss,tty,stat,stime,time,etime,comm,args,nlwp,ni,pri").unwrap();
        let cells: Vec<String> =
            columns.iter().map(|(_, column)| cell(*column, &process, &node())).collect();
        assert_eq!(
            cells.join("|"),
            "web|33|42|1|1|1.0|4.0|2000|400|pts/0|Ssl+|22:26|00:00:02|03:20|a) b|a --flag|3|0|19"
        );
        let other = parse(7, stat, "Uid:\t5\t5\t5\t5\n", b"", 4).unwrap();
        assert_eq!(cell(Column::User, &other, &node()), "5");
        assert_eq!(cell(Column::Command, &other, &node()), "[a) b]");
        assert!(parse(7, "nonsense", status, b"", 4).is_none());
    }

    #[test]
    fn times_are_those_of_ps() {
        assert_eq!(start(1_700_000_000, 1_700_000_100), "22:13");
        assert_eq!(start(1_700_000_000, 1_800_000_000), "Nov14");
        assert_eq!(
            (elapsed(59), elapsed(3_700), elapsed(90_000)),
            ("00:59".into(), "01:01:40".into(), "1-01:00:00".into())
        );
        assert_eq!((terminal(0), terminal(0x441)), ("?".into(), "ttyS1".into()));
    }

    #[test]
    fn groups_are_read_with_those_inside() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("pids/midge/c");
        fs::create_dir_all(group.join("inner")).unwrap();
        fs::write(group.join("cgroup.procs"), "30\n4\n").unwrap();
        fs::write(group.join("inner/cgroup.procs"), "5\n").unwrap();
        assert_eq!(members(dir.path(), "/midge/c"), [4, 5, 30]);
        assert!(members(dir.path(), "/none").is_empty());
    }
}
