//! Docker's JSON, written by hand: only what midge says and reads.
//!
//! Unknown fields are ignored. Options that Docker knows and midge does not are kept as raw values,
//! so that `convert` refuses them by name where they are set. What a client leaves out and what it
//! sends as null mean the same.

mod backup;
mod cluster;
mod container;
mod engine;
mod facts;
mod generic;
mod image;
mod node;
mod service;
mod storage;
mod task;

pub use backup::*;
pub use cluster::*;
pub use container::*;
pub use engine::*;
pub use facts::EngineFacts;
pub use generic::*;
pub use image::*;
pub use node::*;
pub use service::*;
pub use storage::*;
pub use task::*;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Reads null as the default: Go writes empty lists and maps so.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Tells whether a raw value says nothing: null, false, zero, or empty all the way down.
#[must_use]
pub fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_unset),
    }
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// In words.
    pub message: String,
}

/// The version of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ObjectVersion {
    /// As one number.
    pub index: u64,
}
