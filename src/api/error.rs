//! From the class of a refusal to an HTTP status: the only such map.

pub use crate::cluster::NOT_A_MANAGER;

use crate::cluster::{Class, Refusal};
use http::StatusCode;

/// What a node that is in no cluster answers. The text is Docker's.
pub const NOT_IN_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \
     \"docker swarm join\" to connect this node to swarm and try again.";

/// What a manager answers that waits for its unlock key. The text is Docker's.
pub const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please \
     use \"docker swarm unlock\" to unlock it.";

/// Returns the status that stands for a class.
#[must_use]
pub fn status(class: Class) -> StatusCode {
    match class {
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::Invalid => StatusCode::BAD_REQUEST,
        Class::Conflict => StatusCode::CONFLICT,
        Class::Forbidden => StatusCode::FORBIDDEN,
        Class::Unauthorized => StatusCode::UNAUTHORIZED,
        Class::Unavailable | Class::NotLeader => StatusCode::SERVICE_UNAVAILABLE,
        Class::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(Class::Invalid, message)
}

pub(crate) fn not_found(message: impl Into<String>) -> Refusal {
    Refusal::new(Class::NotFound, message)
}

pub(crate) fn unsupported(message: impl Into<String>) -> Refusal {
    Refusal::new(Class::Unsupported, message)
}

/// For an answer of the leader that does not fit the question.
pub(crate) fn unexpected(question: &str) -> Refusal {
    Refusal::new(Class::Internal, format!("unexpected answer of the leader to {question}"))
}
