//! What somebody who mistyped a name may have meant.

use super::human;
use serde_json::Value;

/// One slip in so many letters is a mistyped name; more, and everything short resembles everything.
const LETTERS_PER_SLIP: usize = 3;

/// From so many letters on, a part of a name stands for it.
const PART_MIN: usize = 3;

/// From so many letters on, the beginning of a name does.
const BEGINNING_MIN: usize = 2;

/// How many names are suggested: more are a list.
const NAMES_MAX: usize = 3;

/// The longest name that is compared: comparing takes time by the product of the lengths.
const LENGTH_MAX: usize = 256;

/// A kind of thing that has names.
pub(crate) struct Kind {
    /// What errors call it.
    pub(crate) noun: &'static str,
    /// Where the daemon lists it.
    pub(crate) list: &'static str,
    /// Where the list is in the answer.
    inside: &'static str,
    /// Where an entry holds its names.
    name: &'static str,
    /// The command that lists it.
    pub(crate) command: &'static str,
}

const fn kind(
    noun: &'static str,
    list: &'static str,
    inside: &'static str,
    name: &'static str,
    command: &'static str,
) -> Kind {
    Kind { noun, list, inside, name, command }
}

/// Everything that has names.
pub(crate) const KINDS: &[Kind] = &[
    kind("service", "/services", "", "/Spec/Name", "service ls"),
    kind("node", "/nodes", "", "/Description/Hostname", "node ls"),
    kind("task", "/tasks", "", "/Name", "service ps SERVICE"),
    kind("image", "/images/json", "", "/RepoTags", "image ls"),
    kind("container", "/containers/json?all=1", "", "/Names", "ps -a"),
    kind("network", "/networks", "", "/Name", "network ls"),
    kind("volume", "/volumes", "/Volumes", "/Name", "volume ls"),
    kind("secret", "/secrets", "", "/Spec/Name", "secret ls"),
    kind("config", "/configs", "", "/Spec/Name", "config ls"),
];

impl Kind {
    /// Returns the names in the daemon's list.
    pub(crate) fn names(&self, answer: &Value) -> Vec<String> {
        let entries = human::list(answer, self.inside).iter();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.pointer(self.name))
            .flat_map(|name| match name {
                Value::String(name) => vec![name.clone()],
                Value::Array(names) => {
                    names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
                }
                _ => Vec::new(),
            })
            .map(|name| name.trim_start_matches('/').to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Finds what an error says is missing: its kind and its name.
pub(crate) fn missing(message: &str) -> Option<(&'static Kind, &str)> {
    let message = message.strip_prefix("Error response from daemon: ").unwrap_or(message);
    // `cannot kill container: web.1: No such container: web.1`
    let message = message.find(": No such ").map_or(message, |at| &message[at + 2..]);
    KINDS.iter().find_map(|kind| {
        let named = message
            .strip_prefix(kind.noun)
            .and_then(|rest| rest.strip_prefix(' ')?.strip_suffix(" not found"))
            .or_else(|| {
                let rest = message
                    .strip_prefix("No such ")
                    .or_else(|| message.strip_prefix("no such "))?;
                rest.strip_prefix(kind.noun)?.strip_prefix(": ")
            })
            .or_else(|| {
                let rest = message.strip_prefix("get ")?.strip_suffix(kind.noun)?;
                rest.strip_suffix(": no such ")
            })?;
        Some((kind, named))
    })
}

/// Returns the hint for a name that does not exist among those that do.
pub(crate) fn hint(kind: &Kind, wanted: &str, answer: &Value) -> String {
    let names = kind.names(answer);
    let near = nearest(wanted, names.iter().map(String::as_str));
    match near.as_slice() {
        [] => format!("midge {} lists what there is", kind.command),
        [one] => format!("did you mean {one}?"),
        [many @ .., last] => format!("did you mean {} or {last}?", many.join(", ")),
    }
}

/// Returns the names that are most like a word, the likest first.
pub(crate) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    if word.is_empty() || word.len() > LENGTH_MAX {
        return Vec::new();
    }
    let lower = word.to_lowercase();
    let length = lower.chars().count();
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter(|name| name.len() <= LENGTH_MAX && *name != word)
        .filter_map(|name| {
            let other = name.to_lowercase();
            let longer = length.max(other.chars().count());
            let slips_max = (longer / LETTERS_PER_SLIP).max(usize::from(longer > 1));
            let slips = strsim::damerau_levenshtein(&lower, &other);
            let part = length >= PART_MIN && other.contains(&lower);
            let part = part || (length >= BEGINNING_MIN && other.starts_with(&lower));
            (slips <= slips_max || part).then_some((slips, name))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().map(|(_, name)| name).take(NAMES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_tell_what_is_missing() {
        for (message, noun, name) in [
            ("Error response from daemon: service wbe not found", "service", "wbe"),
            ("Error response from daemon: node n 1 not found", "node", "n 1"),
            ("no such service: wbe", "service", "wbe"),
            ("Error response from daemon: No such image: bb:3", "image", "bb:3"),
            ("Error response from daemon: get v1: no such volume", "volume", "v1"),
            (
                "Error response from daemon: cannot kill container: we: No such container: we",
                "container",
                "we",
            ),
        ] {
            let (kind, found) = missing(message).expect(message);
            assert_eq!((kind.noun, found), (noun, name));
        }
        for message in ["", "page not found", "service", "service  not", "no such thing: x"] {
            assert!(missing(message).is_none(), "{message}");
        }
    }

    #[test]
    fn the_likest_come_first() {
        let names = ["web", "webq", "db", "worker", "Frontend"];
        assert_eq!(nearest("wbe", names), ["web"]);
        assert_eq!(nearest("webs", names), ["web", "webq"]);
        assert_eq!(nearest("front", names), ["Frontend"]);
        assert_eq!(nearest("zzz", names), [""; 0]);
        assert_eq!(nearest("", names), [""; 0]);
    }

    #[test]
    fn hints_name_what_there_is() {
        let services = json!([{"Spec": {"Name": "web"}}, {"Spec": {"Name": "webq"}}]);
        assert_eq!(hint(&KINDS[0], "we", &services), "did you mean web or webq?");
        assert_eq!(hint(&KINDS[0], "xyz", &services), "midge service ls lists what there is");
        let images = json!([{"RepoTags": ["bb:1", "bb:2"]}, {"RepoTags": null}]);
        assert_eq!(hint(&KINDS[3], "bb", &images), "did you mean bb:1 or bb:2?");
    }
}
