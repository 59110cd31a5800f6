//! Environment variables, as `NAME=value`.

/// Returns the name of a variable.
pub(in crate::runtime) fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

/// Puts `given` over `env`: the last of a name wins and keeps the first one's place. A name
/// without `=` takes the variable away, as Docker has it.
pub(in crate::runtime) fn merge<'a>(
    env: &mut Vec<String>,
    given: impl IntoIterator<Item = &'a String>,
) {
    for variable in given {
        let same = env.iter().position(|known| name(known) == name(variable));
        match (same, variable.contains('=')) {
            (Some(at), true) => env[at].clone_from(variable),
            (Some(at), false) => drop(env.remove(at)),
            (None, true) => env.push(variable.clone()),
            (None, false) => {}
        }
    }
}
