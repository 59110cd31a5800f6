//! The regular expressions that Docker's filters take for names, as far as names need them.

use super::error::invalid;
use crate::cluster::Refusal;

/// A character, or a place in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Is(char),
    Any,
    Start,
    End,
}

/// A piece, and how often it may occur.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    piece: Piece,
    is_optional: bool,
    repeats: bool,
}

/// A pattern: characters, `.`, `^`, `$`, `\` before any of these, `*`, `+` and `?` behind one, and `|`
/// between whole alternatives. It fits where it occurs anywhere in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Vec<Part>>);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// It has what is not known here: groups, classes, counts.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let wrong = |what: &str| invalid(format!("invalid pattern '{text}': {what}"));
        let mut alternatives = vec![Vec::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let parts: &mut Vec<Part> = alternatives.last_mut().expect("there is always one");
            let piece = match c {
                '|' => {
                    alternatives.push(Vec::new());
                    continue;
                }
                '*' | '+' | '?' => {
                    let counted = parts.last_mut().filter(|part| part.is_counted_once());
                    let part = counted.ok_or_else(|| wrong("nothing is there to repeat"))?;
                    part.is_optional = c != '+';
                    part.repeats = c != '?';
                    continue;
                }
                '(' | ')' | '[' | ']' | '{' | '}' => {
                    return Err(wrong("groups, classes and counts are not supported"));
                }
                '\\' => match chars.next() {
                    Some(c) if !c.is_alphanumeric() => Piece::Is(c),
                    _ => return Err(wrong("\\ stands before what is no sign")),
                },
                '.' => Piece::Any,
                '^' => Piece::Start,
                '$' => Piece::End,
                c => Piece::Is(c),
            };
            parts.push(Part { piece, is_optional: false, repeats: false });
        }
        Ok(Self(alternatives))
    }

    /// Tells whether the pattern occurs in a text.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.0.iter().any(|parts| occurs(parts, text))
    }
}

impl Part {
    fn is_counted_once(&self) -> bool {
        let is_place = matches!(self.piece, Piece::Start | Piece::End);
        !is_place && !self.is_optional && !self.repeats
    }

    fn takes(&self, c: char) -> bool {
        match self.piece {
            Piece::Is(own) => own == c,
            Piece::Any => true,
            Piece::Start | Piece::End => false,
        }
    }
}

/// Follows every way through the parts at once, so that no pattern takes long.
fn occurs(parts: &[Part], text: &str) -> bool {
    let mut reached = vec![false; parts.len() + 1];
    let mut chars = text.chars();
    let mut at_start = true;
    loop {
        reached[0] = true;
        let next = chars.next();
        for (at, part) in parts.iter().enumerate() {
            let passes = match part.piece {
                Piece::Start => at_start,
                Piece::End => next.is_none(),
                Piece::Is(_) | Piece::Any => part.is_optional,
            };
            reached[at + 1] |= reached[at] && passes;
        }
        if reached[parts.len()] {
            return true;
        }
        let Some(c) = next else { return false };
        let mut after = vec![false; parts.len() + 1];
        for (at, part) in parts.iter().enumerate() {
            if reached[at] && part.takes(c) {
                after[at + 1] = true;
                after[at] |= part.repeats;
            }
        }
        (reached, at_start) = (after, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_fit_as_regular_expressions() {
        for (pattern, text, expected) in [
            ("", "web", true),
            ("web", "a-web.1", true),
            (r"^web\.1", "web.1.abc", true),
            (r"^web\.1", "web-1.abc", false),
            ("^web.1$", "web-1", true),
            ("^eb", "web", false),
            ("we$", "web", false),
            ("^(web)", "web", false),
            ("^w.*b$|^db$", "w--b", true),
            ("^w.*b$|^db$", "db", true),
            ("^w.*b$|^db$", "adb", false),
            ("we?b+$", "wbbb", true),
            ("we?b+$", "weeb", false),
            ("a|", "x", true),
        ] {
            let found = Pattern::parse(pattern).is_ok_and(|pattern| pattern.is_in(text));
            assert_eq!(found, expected, "{pattern} in {text}");
        }
        for wrong in ["(a)", "[a]", "a{2}", "*", "a**", "^*", r"\d", "a\\"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
        let long = Pattern::parse(&".*a".repeat(100)).unwrap();
        assert!(!long.is_in(&"a".repeat(99)) && long.is_in(&"a".repeat(100)));
    }

    proptest! {
        #[test]
        fn a_pattern_means_what_the_regex_library_says(
            pattern in r"\^?([ab]|\.|\\\.)([ab.]|\\\.|[ab][*+?]|\|){0,6}\$?",
            text in "[ab.]{0,8}",
        ) {
            let expected = regex::Regex::new(&pattern).unwrap().is_match(&text);
            prop_assert_eq!(Pattern::parse(&pattern).unwrap().is_in(&text), expected);
        }

        #[test]
        fn no_text_makes_it_panic(pattern in "\\PC{0,40}", text in "\\PC{0,40}") {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                pattern.is_in(&text);
            }
        }
    }
}
