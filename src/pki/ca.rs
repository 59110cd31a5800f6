//! The certificate authority: the root, requests and signatures.

use super::{Identity, MANAGER_NAME, pem::from_pem};
use crate::types::{Date, Role, RootCa};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use std::time::Duration;
use x509_parser::{
    asn1_rs::Tag,
    prelude::{FromDer, X509Certificate, X509CertificationRequest},
};

/// How long the root is good for, as Swarm's.
const ROOT_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3_600);

/// How far back a certificate's life begins: the clocks of a cluster may differ by so much.
pub(super) const BACKDATE: Duration = Duration::from_secs(3_600);

/// The tag of a PrintableString, X.680.
const PRINTABLE_STRING: Tag = Tag(19);

/// The largest signing request that is looked at. One of a P-256 key takes about 250 bytes, one of
/// RSA 4096, which is refused all the same, about 1,200.
const REQUEST_LEN_MAX: usize = 4_096;

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Making a key or a signature failed.
    #[error("cannot {doing}")]
    Crypto {
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// The request to sign is no request, or its own signature is wrong.
    #[error("the certificate signing request is invalid: {0}")]
    InvalidRequest(String),
    /// The root in the cluster's state cannot be used.
    #[error("the cluster's root certificate or its key is damaged")]
    DamagedRoot(#[source] rcgen::Error),
}

/// A user's root cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// The text is something else.
    #[error("the root's {0} is not one PEM block of that kind")]
    Pem(&'static str),
    /// It may not sign others.
    #[error("the certificate is not a certificate authority's")]
    NoAuthority,
    /// Its time is another.
    #[error("the certificate is good from {from} until {until}, and not now")]
    Expired {
        /// From.
        from: Date,
        /// Until.
        until: Date,
    },
    /// The key is of another kind.
    #[error("the root's key is not a PKCS #8 key of ECDSA on P-256")]
    Algorithm,
    /// The two do not belong together.
    #[error("the key is not that of the certificate")]
    OtherKey,
    /// The subject is another.
    #[error("the certificate's subject is not CN=swarm-ca alone, as cross-signing it takes")]
    Name,
}

fn crypto(doing: &'static str) -> impl FnOnce(rcgen::Error) -> CaError {
    move |source| CaError::Crypto { doing, source }
}

/// Sets the time of validity. rcgen counts in a type of another crate; a day of 1970 and a
/// duration give it without naming that.
fn set_validity(params: &mut CertificateParams, from: Date, until: Date) {
    let at =
        |date: Date| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(date.unix_seconds());
    params.not_before = at(from);
    params.not_after = at(until);
}

/// Makes a root certificate with a fresh key: ECDSA P-256, CN `swarm-ca`, good for 20 years.
///
/// # Errors
///
/// The system gives no randomness.
pub fn create_root(date: Date) -> Result<RootCa, CaError> {
    let key = KeyPair::generate().map_err(crypto("make the root's key"))?;
    let mut params = root_params();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    set_validity(&mut params, date - BACKDATE, date + ROOT_LIFE);
    let certificate = params.self_signed(&key).map_err(crypto("sign the root certificate"))?;
    let certificate = certificate.der().to_vec();
    let digest = Sha256::digest(&certificate).into();
    Ok(RootCa { certificate, key: key.serialize_der(), digest })
}

/// Returns SHA-256 of a root certificate: what join tokens name it by.
#[must_use]
pub fn root_digest(certificate: &[u8]) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// Takes a root that a user gives, as the text of two PEMs.
///
/// # Errors
///
/// Either is no PEM of its kind; the certificate is no authority's, or not good at `date`; the key
/// is not its key; or it is not one that midge works with, of ECDSA on P-256.
pub fn adopt_root(certificate: &str, key: &str, date: Date) -> Result<RootCa, AdoptError> {
    let one = |text: &str, labels: &[&str]| {
        let found = labels.iter().find_map(|label| from_pem(label, text));
        found.filter(|found| found.len() == 1).and_then(|mut found| found.pop())
    };
    let certificate = one(certificate, &["CERTIFICATE"]).ok_or(AdoptError::Pem("certificate"))?;
    let key = one(key, &["PRIVATE KEY", "EC PRIVATE KEY"]).ok_or(AdoptError::Pem("key"))?;
    let (rest, parsed) =
        X509Certificate::from_der(&certificate).map_err(|_| AdoptError::Pem("certificate"))?;
    let life = super::validity(&certificate).map_err(|_| AdoptError::Pem("certificate"))?;
    if !rest.is_empty() || !parsed.is_ca() {
        return Err(AdoptError::NoAuthority);
    }
    if !life.contains(date) {
        return Err(AdoptError::Expired { from: life.not_before, until: life.not_after });
    }
    let pair = KeyPair::try_from(key.as_slice()).map_err(|_| AdoptError::Algorithm)?;
    if pair.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(AdoptError::Algorithm);
    }
    if pair.subject_public_key_info() != parsed.public_key().raw {
        return Err(AdoptError::OtherKey);
    }
    let own: Vec<_> = parsed.subject().iter_common_name().map(|cn| cn.as_str()).collect();
    if own != [Ok(MANAGER_NAME)] || parsed.subject().iter_attributes().count() != 1 {
        return Err(AdoptError::Name);
    }
    let digest = root_digest(&certificate);
    let root = RootCa { certificate, key: pair.serialize_der(), digest };
    Ok(root)
}

/// Has one root vouch for the next: a certificate of the name and the key of `new`, signed by `old`.
/// Shown beside what `new` signs, it lets those check it who know only `old`.
///
/// It bounds no path below it, since there may be another of its kind: the one by which `new` in its
/// turn vouches for its own successor.
///
/// # Errors
///
/// A root is damaged.
pub fn cross_sign(old: &RootCa, new: &RootCa, date: Date) -> Result<Vec<u8>, CaError> {
    let key = |root: &RootCa| KeyPair::try_from(root.key.as_slice()).map_err(CaError::DamagedRoot);
    let certificate = CertificateDer::from(old.certificate.as_slice());
    let issuer = Issuer::from_ca_cert_der(&certificate, key(old)?).map_err(CaError::DamagedRoot)?;
    let mut params = root_params();
    if is_printable(&new.certificate) {
        let name = MANAGER_NAME.try_into().map_err(crypto("name the root"))?;
        params.distinguished_name.push(DnType::CommonName, DnValue::PrintableString(name));
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, date - BACKDATE, date + ROOT_LIFE);
    let signed = params.signed_by(&key(new)?, &issuer).map_err(crypto("cross-sign the root"))?;
    Ok(signed.der().to_vec())
}

/// Tells whether a root's name is a PrintableString, as Go writes it, and not a UTF8String: names
/// are compared byte by byte.
fn is_printable(root: &[u8]) -> bool {
    X509Certificate::from_der(root).is_ok_and(|(_, parsed)| {
        parsed.subject().iter_common_name().any(|name| name.attr_value().tag() == PRINTABLE_STRING)
    })
}

fn root_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, MANAGER_NAME);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Makes a node's private key (PKCS #8 DER) and a request for a certificate of it. The request
/// names nobody: who the node is, the manager decides.
///
/// # Errors
///
/// The system gives no randomness, or `existing` is no key.
pub fn new_key_and_request(existing: Option<&[u8]>) -> Result<(Vec<u8>, Vec<u8>), CaError> {
    let key = match existing {
        Some(der) => KeyPair::try_from(der).map_err(crypto("read the node's key"))?,
        None => KeyPair::generate().map_err(crypto("make the node's key"))?,
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(crypto("sign the request"))?;
    Ok((key.serialize_der(), request.der().to_vec()))
}

/// Reads a request and checks that whoever made it holds its key.
fn read_request(der: &[u8]) -> Result<CertificateSigningRequestParams, CaError> {
    if der.len() > REQUEST_LEN_MAX {
        return Err(CaError::InvalidRequest(format!("{} bytes are too many", der.len())));
    }
    let request =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|e| CaError::InvalidRequest(e.to_string()))?;
    if request.public_key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256 {
        Ok(request)
    } else {
        Err(CaError::InvalidRequest("its key is not ECDSA P-256".to_owned()))
    }
}

/// Returns SHA-256 of the public key in a signing request, in the form of
/// [`super::key_digest`].
///
/// # Errors
///
/// The request is invalid.
pub fn request_key_digest(csr: &[u8]) -> Result<[u8; 32], CaError> {
    let _checked = read_request(csr)?;
    let (_, request) = X509CertificationRequest::from_der(csr)
        .map_err(|e| CaError::InvalidRequest(e.to_string()))?;
    Ok(Sha256::digest(request.certification_request_info.subject_pki.raw).into())
}

/// Signs a node's certificate: the public key from the request, all else from `subject`. Good
/// from an hour before `date` until `life` after it.
///
/// # Errors
///
/// The request is invalid, or the root is damaged.
pub fn sign(
    root: &RootCa,
    csr: &[u8],
    subject: &Identity,
    date: Date,
    life: Duration,
) -> Result<Vec<u8>, CaError> {
    let mut request = read_request(csr)?;
    let key = KeyPair::try_from(root.key.as_slice()).map_err(CaError::DamagedRoot)?;
    let certificate = CertificateDer::from(root.certificate.as_slice());
    let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(CaError::DamagedRoot)?;
    request.params = node_params(subject, date, life)?;
    let signed = request.signed_by(&issuer).map_err(crypto("sign the node's certificate"))?;
    Ok(signed.der().to_vec())
}

fn node_params(
    subject: &Identity,
    date: Date,
    life: Duration,
) -> Result<CertificateParams, CaError> {
    let role = subject.role.organizational_unit();
    // A label of letters last: a name that ends in digits is no DNS name to a verifier.
    let mut names = vec![role.to_owned(), format!("{}.nodes.midge", subject.node)];
    let mut usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if subject.role == Role::Manager {
        names.push(MANAGER_NAME.to_owned());
        usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let mut params = CertificateParams::default();
    for name in names {
        let name = name.try_into().map_err(crypto("name the node in its certificate"))?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject.node.as_str());
    params.distinguished_name.push(DnType::OrganizationalUnitName, role);
    params.distinguished_name.push(DnType::OrganizationName, subject.cluster.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, date - BACKDATE, date + life);
    Ok(params)
}
