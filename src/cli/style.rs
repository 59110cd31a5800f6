//! Colours, where a person sees them: on a terminal that has not been told otherwise.

use std::io::IsTerminal;

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Something is broken.
    Bad,
    /// Something is not as it should be, or not yet.
    Warn,
    /// What to do next.
    Hint,
}

/// Tells whether what is written to `stream` may bear colours: <https://no-color.org>.
pub(crate) fn enabled(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_none_or(|t| t != "dumb")
}

/// Colours a text where `colour` says so.
pub(crate) fn paint(colour: bool, tone: Tone, text: &str) -> String {
    if !colour || text.is_empty() {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Bad => 31,
        Tone::Warn => 33,
        Tone::Hint => 36,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Columns whose first word is a state.
const STATES: [&str; 5] = ["Status", "Availability", "ManagerStatus", "CurrentState", "State"];

/// Returns how a cell of the column of this field is shown.
pub(crate) fn of_cell(field: &str, cell: &str) -> Option<Tone> {
    if field == "Error" && !cell.is_empty() {
        return Some(Tone::Bad);
    }
    if !STATES.contains(&field) {
        return None;
    }
    match cell.split([' ', '(']).next()? {
        "Down" | "Failed" | "Rejected" | "Orphaned" | "Unreachable" | "Dead" => Some(Tone::Bad),
        "Unknown" | "Drain" | "Pause" | "Pending" | "Disconnected" => Some(Tone::Warn),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_states_are_coloured() {
        assert_eq!(of_cell("Status", "Down"), Some(Tone::Bad));
        assert_eq!(of_cell("CurrentState", "Pending 5 seconds ago"), Some(Tone::Warn));
        assert_eq!(of_cell("Name", "Down"), None);
        assert_eq!(of_cell("Error", ""), None);
        assert_eq!(of_cell("Status", ""), None);
    }

    #[test]
    fn a_file_is_no_terminal() {
        assert!(!enabled(&std::fs::File::open("/dev/null").unwrap()));
        assert_eq!(paint(false, Tone::Bad, "x"), "x");
    }
}
