//! When a node asks for its next certificate.

use super::Validity;
use crate::types::Date;

/// Where in a certificate's life its renewal lies, drawn once for each certificate, so that the
/// nodes of a fleet that was set up in one hour do not renew in one hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalPoint(u64);

impl RenewalPoint {
    /// Turns random bits into a point.
    #[must_use]
    pub const fn from_random(bits: u64) -> Self {
        Self(bits)
    }
}

/// Returns the date from which to ask for a new certificate: between 50 % and 80 % of its life,
/// as Swarm does. Half a life is left for a node that was off, and a fifth for a manager that is.
#[must_use]
pub fn renewal_point(validity: Validity, point: RenewalPoint) -> Date {
    let life = u128::from(validity.not_after.since(validity.not_before).as_secs());
    // Thousandths of a life: 500 and up to 300 more.
    let thousandths = 500 + u128::from(point.0 % 301);
    let into = u64::try_from(life * thousandths / 1000).unwrap_or(u64::MAX);
    validity.not_before + std::time::Duration::from_secs(into)
}
