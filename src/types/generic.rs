//! Generic resources: what a node has besides CPU and memory, in kinds that its operator names.
//!
//! Either things with names (`gpu=GPU-1f3a`), of which a task is given certain ones, or so many of
//! what cannot be told apart (`ssd=3`).

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// How many generic resources a node declares at most: more than any machine has devices, and each
/// is looked at whenever a task that wants one is placed.
pub const GENERIC_RESOURCES_MAX: usize = 256;

/// The longest name of a kind: it becomes part of a variable's name.
const KIND_MAX: usize = 64;

/// The longest name of a thing: ids of devices are some 40 characters.
const NAME_MAX: usize = 256;

/// How many of each kind a task wants.
pub type GenericReservations = BTreeMap<String, u64>;

/// Something of a node that one task at a time can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GenericResource {
    /// A thing with a name.
    Named {
        /// What it is.
        kind: String,
        /// Which one.
        name: String,
    },
    /// So many of what cannot be told apart.
    Discrete {
        /// What they are.
        kind: String,
        /// How many.
        count: u64,
    },
}

/// A list of generic resources that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGenericResource {
    /// Not `KIND=VALUE`.
    #[error("invalid generic-resource format `{0}` expected `name=value`")]
    Format(String),
    /// The kind could not be part of a variable's name.
    #[error(
        "invalid generic resource kind {0:?}: up to 64 letters, digits, dots, dashes and \
         underscores are expected"
    )]
    Kind(String),
    /// The name of a thing is empty, too long, or would not be told from its neighbours.
    #[error(
        "invalid generic resource name {0:?}: up to 256 characters without spaces and commas \
         are expected"
    )]
    Name(String),
    /// One kind is counted and named.
    #[error(
        "generic resource {0} is given by names and by a number; only one of them can be meant"
    )]
    Mixed(String),
    /// Said twice.
    #[error("generic resource {0} is given twice")]
    Twice(String),
    /// More than a node can have.
    #[error("{0} generic resources are more than {GENERIC_RESOURCES_MAX}")]
    TooMany(usize),
}

impl GenericResource {
    /// Reads `KIND=VALUE`: a number is so many, anything else a name.
    ///
    /// # Errors
    ///
    /// It is not of that form.
    pub fn parse(text: &str) -> Result<Self, InvalidGenericResource> {
        let format = || InvalidGenericResource::Format(text.to_owned());
        let (kind, value) = text.split_once('=').ok_or_else(format)?;
        let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if kind.is_empty() || kind.len() > KIND_MAX || !kind.chars().all(known) {
            return Err(InvalidGenericResource::Kind(kind.to_owned()));
        }
        let kind = kind.to_owned();
        if let Ok(count) = value.parse::<u64>() {
            return Ok(Self::Discrete { kind, count });
        }
        let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != ',';
        if value.is_empty() || value.len() > NAME_MAX || !value.chars().all(plain) {
            return Err(InvalidGenericResource::Name(value.to_owned()));
        }
        Ok(Self::Named { kind, name: value.to_owned() })
    }

    /// Reads what a node declares; returns it in order.
    ///
    /// # Errors
    ///
    /// An entry is not of the form `KIND=VALUE`, or contradicts another.
    pub fn parse_list(entries: &[String]) -> Result<Vec<Self>, InvalidGenericResource> {
        if entries.len() > GENERIC_RESOURCES_MAX {
            return Err(InvalidGenericResource::TooMany(entries.len()));
        }
        let mut list: Vec<Self> =
            entries.iter().map(|entry| Self::parse(entry)).collect::<Result<_, _>>()?;
        list.sort();
        let mut counted = BTreeSet::new();
        for resource in &list {
            if let Self::Discrete { kind, .. } = resource
                && !counted.insert(kind.as_str())
            {
                return Err(InvalidGenericResource::Twice(kind.clone()));
            }
        }
        let named = list.iter().filter(|resource| matches!(resource, Self::Named { .. }));
        if let Some(mixed) = named.map(Self::kind).find(|kind| counted.contains(kind)) {
            return Err(InvalidGenericResource::Mixed(mixed.to_owned()));
        }
        if let Some(pair) = list.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(InvalidGenericResource::Twice(pair[0].to_string()));
        }
        Ok(list)
    }

    /// Returns what it is.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Named { kind, .. } | Self::Discrete { kind, .. } => kind,
        }
    }

    /// Returns which one, or how many.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::Named { name, .. } => name.clone(),
            Self::Discrete { count, .. } => count.to_string(),
        }
    }

    /// Returns the variables that tell a container what it has, as Swarm's:
    /// `DOCKER_RESOURCE_GPU=a,b`.
    #[must_use]
    pub fn environment(assigned: &[Self]) -> Vec<String> {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for resource in assigned {
            let kind = resource.kind().to_uppercase();
            values.entry(kind).or_default().push(resource.value());
        }
        let variable = |(kind, values): (String, Vec<String>)| {
            format!("DOCKER_RESOURCE_{kind}={}", values.join(","))
        };
        values.into_iter().map(variable).collect()
    }
}

impl fmt::Display for GenericResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind(), self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Result<Vec<GenericResource>, String> {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        GenericResource::parse_list(&entries).map_err(|error| error.to_string())
    }

    #[test]
    fn things_and_numbers_are_told_apart() {
        let all = list(&["ssd=3", "gpu=b", "gpu=a", "NVIDIA-GPU=GPU-1f=x"]).unwrap();
        let shown: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["NVIDIA-GPU=GPU-1f=x", "gpu=a", "gpu=b", "ssd=3"]);
        assert_eq!(
            GenericResource::environment(&all),
            [
                "DOCKER_RESOURCE_GPU=a,b",
                "DOCKER_RESOURCE_NVIDIA-GPU=GPU-1f=x",
                "DOCKER_RESOURCE_SSD=3"
            ]
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (entries, error) in [
            (&["gpu"][..], "invalid generic-resource format `gpu` expected `name=value`"),
            (&["=1"], "invalid generic resource kind \"\""),
            (&["g p=1"], "invalid generic resource kind \"g p\""),
            (&["gpu="], "invalid generic resource name \"\""),
            (&["gpu=a,b"], "invalid generic resource name \"a,b\""),
            (&["gpu=a", "gpu=1"], "generic resource gpu is given by names and by a number"),
            (&["ssd=1", "ssd=2"], "generic resource ssd is given twice"),
            (&["gpu=a", "gpu=a"], "generic resource gpu=a is given twice"),
        ] {
            let said = list(entries).unwrap_err();
            assert!(said.starts_with(error), "{entries:?}: {said}");
        }
        let many: Vec<String> = (0..257).map(|n| format!("gpu=g{n}")).collect();
        assert!(GenericResource::parse_list(&many).is_err());
    }
}
