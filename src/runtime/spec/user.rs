//! Which ids a container's process runs under, by the image's own `/etc/passwd` and `/etc/group`.

use std::collections::BTreeSet;

/// What a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::runtime) struct User {
    pub(in crate::runtime) uid: u32,
    pub(in crate::runtime) gid: u32,
    /// Supplementary groups.
    pub(in crate::runtime) groups: Vec<u32>,
}

/// The image has no such user or group. The wording is Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::runtime) enum UserError {
    /// No such user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    User(String),
    /// No such group.
    #[error("unable to find group {0}: no matching entries in group file")]
    Group(String),
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

/// Resolves `name|uid[:group|gid]`; empty is root. As Docker has it: a user that the image knows
/// brings its group and its supplementary groups; a group that is named replaces them all; a
/// number that the image does not know stands for itself, with group 0. The groups in `more` come
/// on top.
pub(in crate::runtime) fn resolve(
    wanted: &str,
    more: &[String],
    passwd: &str,
    group: &str,
) -> Result<User, UserError> {
    let mut user = resolve_user(wanted, passwd, group)?;
    for wanted in more {
        let gid = group_id(wanted, group)?;
        if !user.groups.contains(&gid) {
            user.groups.push(gid);
        }
    }
    Ok(user)
}

/// Returns the number of a group that is named or numbered.
fn group_id(wanted: &str, group: &str) -> Result<u32, UserError> {
    let number = wanted.parse::<u32>().ok();
    let found = groups(group).find(|g| g.name == wanted || Some(g.gid) == number);
    let gid = found.map(|g| g.gid).or(number);
    gid.ok_or_else(|| UserError::Group(wanted.to_owned()))
}

fn resolve_user(wanted: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user, named_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let account = accounts(passwd).find(|a| a.name == user || Some(a.uid) == number);
    let (uid, gid, name) = match (account, number) {
        (Some(account), _) => (account.uid, account.gid, account.name),
        (None, Some(uid)) => (uid, 0, ""),
        (None, None) => return Err(UserError::User(user.to_owned())),
    };
    if let Some(wanted) = named_group {
        let gid = group_id(wanted, group)?;
        return Ok(User { uid, gid, groups: vec![gid] });
    }
    let mine = groups(group).filter(|g| !name.is_empty() && g.members.contains(&name));
    let all: BTreeSet<u32> = mine.map(|g| g.gid).chain([gid]).collect();
    Ok(User { uid, gid, groups: all.into_iter().collect() })
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name, uid, gid })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        let members = fields.next().unwrap_or("").split(',').map(str::trim).collect();
        Some(Group { name, gid, members })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:root\nwheel:x:10:root,web\nweb:x:33:\nlog:x:44:web\nbroken\n";

    #[test]
    fn users_resolve_as_docker_resolves_them() {
        for (wanted, uid, gid, groups) in [
            ("", 0, 0, vec![0, 10]),
            ("web", 33, 33, vec![10, 33, 44]),
            ("33", 33, 33, vec![10, 33, 44]),
            ("web:log", 33, 44, vec![44]),
            ("web:5", 33, 5, vec![5]),
            ("1000", 1000, 0, vec![0]),
            ("1000:1001", 1000, 1001, vec![1001]),
            ("1000:", 1000, 0, vec![0]),
        ] {
            let user = User { uid, gid, groups };
            assert_eq!(resolve(wanted, &[], PASSWD, GROUP), Ok(user), "{wanted}");
        }
    }

    #[test]
    fn groups_of_the_task_come_on_top() {
        let more = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            resolve("web:5", &names, PASSWD, GROUP).map(|user| user.groups)
        };
        assert_eq!(more(&["wheel", "44", "777", "5"]), Ok(vec![5, 10, 44, 777]));
        assert_eq!(more(&["video"]), Err(UserError::Group("video".to_owned())));
    }

    #[test]
    fn unknown_names_are_refused_and_missing_files_are_no_error() {
        let unknown = UserError::User("nobody".to_owned());
        assert_eq!(resolve("nobody", &[], PASSWD, GROUP), Err(unknown));
        let unknown = UserError::Group("x".to_owned());
        assert_eq!(resolve("web:x", &[], PASSWD, GROUP), Err(unknown));
        let root = User { uid: 0, gid: 0, groups: vec![0] };
        assert_eq!(resolve("", &[], "", ""), Ok(root));
    }
}
