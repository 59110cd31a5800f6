//! Who a certificate says its holder is.
//!
//! Reads only certificates whose signature was checked already, and is strict all the same: one CN,
//! one O, one OU, each exactly as [`super::sign`] writes them.

use crate::types::{ClusterId, Date, NodeId, Role};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// What a node's certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// CN.
    pub node: NodeId,
    /// OU.
    pub role: Role,
    /// O.
    pub cluster: ClusterId,
}

/// From when until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub not_before: Date,
    /// Until.
    pub not_after: Date,
}

impl Validity {
    /// Tells whether the certificate is good at `date`.
    #[must_use]
    pub fn contains(&self, date: Date) -> bool {
        self.not_before <= date && date <= self.not_after
    }
}

/// The bytes are no node certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not an X.509 certificate.
    #[error("not a certificate: {0}")]
    Malformed(String),
    /// A field is missing, doubled, or not what a node's certificate holds.
    #[error("the certificate's {field} is {problem}")]
    Field {
        /// `CN`, `OU` or `O`.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A certificate authority's certificate names no node.
    #[error("the certificate is a certificate authority's")]
    Authority,
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|e| IdentityError::Malformed(e.to_string()))?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err(IdentityError::Malformed(format!("{} bytes too many", rest.len())))
    }
}

impl Identity {
    /// Reads a node's identity out of its certificate, DER.
    ///
    /// # Errors
    ///
    /// The bytes are no certificate, or not a node's.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = parse(der)?;
        if certificate.is_ca() {
            return Err(IdentityError::Authority);
        }
        let subject = certificate.subject();
        let invalid = |field| move |problem: String| IdentityError::Field { field, problem };
        let node = single(subject, "CN")?;
        let node = NodeId::parse(&node).map_err(|e| invalid("CN")(e.to_string()))?;
        let cluster = single(subject, "O")?;
        let cluster = ClusterId::parse(&cluster).map_err(|e| invalid("O")(e.to_string()))?;
        let unit = single(subject, "OU")?;
        let role = [Role::Worker, Role::Manager]
            .into_iter()
            .find(|role| role.organizational_unit() == unit)
            .ok_or_else(|| invalid("OU")(format!("no role: {unit:?}")))?;
        Ok(Self { node, role, cluster })
    }
}

/// Returns the one value of a subject's field.
fn single(subject: &X509Name<'_>, field: &'static str) -> Result<String, IdentityError> {
    let problem = |problem: &str| IdentityError::Field { field, problem: problem.to_owned() };
    let mut values: Vec<_> = match field {
        "CN" => subject.iter_common_name().collect(),
        "OU" => subject.iter_organizational_unit().collect(),
        _ => subject.iter_organization().collect(),
    };
    let value = values.pop().ok_or_else(|| problem("missing"))?;
    if !values.is_empty() {
        return Err(problem("there more than once"));
    }
    value.as_str().map(str::to_owned).map_err(|_| problem("no text"))
}

/// Returns from when until when a certificate is good.
///
/// # Errors
///
/// The bytes are no certificate.
pub fn validity(der: &[u8]) -> Result<Validity, IdentityError> {
    let certificate = parse(der)?;
    let date = |time: x509_parser::time::ASN1Time| {
        Date::from_unix_seconds(u64::try_from(time.timestamp()).unwrap_or(0))
    };
    let validity = certificate.validity();
    Ok(Validity { not_before: date(validity.not_before), not_after: date(validity.not_after) })
}

/// Returns when a certificate was signed: its life begins some time before that.
///
/// # Errors
///
/// The bytes are no certificate.
pub fn issued(der: &[u8]) -> Result<Date, IdentityError> {
    Ok(validity(der)?.not_before + super::ca::BACKDATE)
}

/// Returns SHA-256 of a certificate's public key (its SubjectPublicKeyInfo): what a node keeps
/// through all its certificates.
///
/// # Errors
///
/// The bytes are no certificate.
pub fn key_digest(der: &[u8]) -> Result<[u8; 32], IdentityError> {
    Ok(Sha256::digest(parse(der)?.public_key().raw).into())
}
