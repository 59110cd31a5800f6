//! Whether a certificate is one of this cluster's, and how far it still counts.
//!
//! Pure: roots and the date are arguments. A certificate that ran out, or that a former root signed,
//! is told apart from a foreign one, since its holder is known all the same: it may ask for the next
//! one. What it may do beside that, `transport` decides.

use super::{MANAGER_NAME, identity::validity};
use crate::types::{Date, Trust};
use rustls::{
    CertificateError, Error, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{fmt, sync::Arc, time::Duration};

/// How far a certificate of this cluster counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// When it ran out, where it has.
    pub expired: Option<Date>,
    /// Whether it was signed by a root of before.
    pub former: bool,
}

/// What certificates are checked against. Cheap to clone.
#[derive(Clone)]
pub struct Anchors {
    clients: Arc<dyn ClientCertVerifier>,
    managers: Arc<WebPkiServerVerifier>,
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anchors").finish_non_exhaustive()
    }
}

/// What the peer shows itself as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// A member that connects.
    Member,
    /// A manager that is connected to.
    Manager,
}

fn time(date: Date) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(date.unix_seconds()))
}

fn is_expired(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. }
        )
    )
}

impl Anchors {
    /// Takes the roots, DER.
    ///
    /// # Errors
    ///
    /// There is none, or one is no certificate.
    pub fn new(roots: &[Vec<u8>]) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(CertificateDer::from(root.as_slice()))?;
        }
        let store = Arc::new(store);
        let unusable = |error: &dyn fmt::Display| Error::General(error.to_string());
        let clients =
            WebPkiClientVerifier::builder_with_provider(store.clone(), Arc::clone(&provider))
                .build()
                .map_err(|error| unusable(&error))?;
        let managers = WebPkiServerVerifier::builder_with_provider(store, provider)
            .build()
            .map_err(|error| unusable(&error))?;
        Ok(Self { clients, managers })
    }

    fn check(
        &self,
        shown: Shown,
        (leaf, rest): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        at: Date,
    ) -> Result<(), Error> {
        match shown {
            Shown::Member => {
                self.clients.verify_client_cert(leaf, rest, time(at))?;
            }
            Shown::Manager => {
                let name = ServerName::try_from(MANAGER_NAME)
                    .map_err(|error| Error::General(error.to_string()))?;
                self.managers.verify_server_cert(leaf, rest, &name, &[], time(at))?;
            }
        }
        Ok(())
    }

    /// Returns how far a certificate, and those shown with it, counts at `now`. One that ran out is
    /// judged by its last second: nothing but the date may be wrong with it. What none of these
    /// roots signed is looked for under the `former` ones.
    ///
    /// # Errors
    ///
    /// It is not one of this cluster's, is not valid yet, or is for another use.
    pub fn standing(
        &self,
        former: &[Self],
        shown: Shown,
        chain: &[CertificateDer<'_>],
        now: Date,
    ) -> Result<Standing, Error> {
        let (leaf, rest) =
            chain.split_first().ok_or_else(|| Error::General("no certificate".to_owned()))?;
        let judge = |anchors: &Self| match anchors.check(shown, (leaf, rest), now) {
            Err(error) if is_expired(&error) => {
                let Ok(life) = validity(leaf) else { return Err(error) };
                if life.not_after >= now {
                    return Err(error);
                }
                anchors.check(shown, (leaf, rest), life.not_after)?;
                Ok(Some(life.not_after))
            }
            outcome => outcome.map(|()| None),
        };
        let error = match judge(self) {
            Ok(expired) => return Ok(Standing { expired, former: false }),
            Err(error) => error,
        };
        match former.iter().find_map(|former| judge(former).ok()) {
            Some(expired) => Ok(Standing { expired, former: true }),
            None => Err(error),
        }
    }
}

/// Checks that whoever has these roots, and no others, takes a node's certificate at `date`.
///
/// # Errors
///
/// Why not.
pub fn stands(trust: &Trust, certificate: &[u8], date: Date) -> Result<(), Error> {
    let anchors = Anchors::new(&trust.roots)?;
    let beside = trust.cross_signed.iter().map(Vec::as_slice);
    let chain: Vec<_> = [certificate].into_iter().chain(beside).map(CertificateDer::from).collect();
    match anchors.standing(&[], Shown::Member, &chain, date)?.expired {
        None => Ok(()),
        Some(_) => Err(Error::InvalidCertificate(CertificateError::Expired)),
    }
}
