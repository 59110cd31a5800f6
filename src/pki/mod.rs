//! Certificates and join tokens.
//!
//! Makes the cluster's root, signs node certificates, reads an identity out of one, writes and
//! reads join tokens, and keeps a node's own key and certificate on disk. Knows nothing of
//! connections, of who was admitted, or of the cluster's state: whoever signs has decided before.

mod ca;
mod clock;
mod files;
#[cfg(test)]
mod fuzz;
mod identity;
mod pem;
mod renewal;
mod seal_key;
mod token;
mod trust;

pub use ca::{
    AdoptError, CaError, adopt_root, create_root, cross_sign, new_key_and_request,
    request_key_digest, root_digest, sign,
};
pub use clock::{BUILD_DATE, TrustedClock};
pub use files::{CertificateFiles, FileError, NodeFiles};
pub use identity::{Identity, IdentityError, Validity, issued, key_digest, validity};
pub use pem::to_pem;
pub use renewal::{RenewalPoint, renewal_point};
pub use seal_key::{KeptKey, SealFile, SealKey, parse_unlock_key, unlock_key_text};
pub use token::{TokenError, TokenText};
pub use trust::{Anchors, Shown, Standing, stands};

/// The name under which every manager's certificate is checked, as Swarm's.
pub const MANAGER_NAME: &str = "swarm-ca";

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trust_tests;
