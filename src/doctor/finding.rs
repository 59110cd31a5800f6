//! What the doctor says of one thing.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing fails for it.
    Note,
    /// Something will not work, or not for long.
    Warning,
    /// midge, or its containers, do not run like this.
    Problem,
}

impl Level {
    /// Returns the word that stands for it, as scripts and people read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Its name. Scripts depend on it: it never changes.
    pub name: String,
    /// What is, in one sentence.
    pub what: String,
    /// What to do about it; empty where there is nothing to do.
    pub mend: String,
}

impl Finding {
    fn new(level: Level, name: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level, name: name.to_owned(), what: what.into(), mend: mend.into() }
    }

    /// Makes a finding of something that is as it should be.
    pub(super) fn ok(name: &str, what: impl Into<String>) -> Self {
        Self::new(Level::Ok, name, what, "")
    }

    /// Makes a finding of something worth knowing.
    pub(super) fn note(name: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Level::Note, name, what, mend)
    }

    /// Makes a finding of something that will not work, or not for long.
    pub(super) fn warning(name: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Level::Warning, name, what, mend)
    }

    /// Makes a finding of something that keeps midge from running.
    pub(super) fn problem(name: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Level::Problem, name, what, mend)
    }
}
