//! Whose certificates are accepted, and what is known of who shows one.
//!
//! A handshake takes every certificate that tells which node it is: also one that ran out, or that a
//! root of before signed. Whoever shows such a one may get another (`authorise`), and no more: a
//! node that was off for a season comes back by itself. Whether it is too late for that, the leader
//! decides.

use super::authorise::{Peer, Trusted};
use crate::{
    pki::{self, Anchors, Identity, Shown, Standing, TrustedClock},
    types::{Date, NodeId, Role, Roster, Trust},
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What certificates are judged by beside the roots of now. One for each endpoint.
pub(super) struct Judge {
    clock: TrustedClock,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    roster: Roster,
    former: Vec<(Anchors, Date)>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").finish_non_exhaustive()
    }
}

/// Who showed a certificate, as it was when the connection was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) identity: Identity,
    pub(super) key_digest: [u8; 32],
    issued: Date,
    standing: Standing,
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Judge {
    pub(super) fn new(clock: TrustedClock) -> Self {
        Self { clock, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the state says, unless more is known already: a log that is read again begins
    /// with what was long ago. Roots of before that are unusable are left out: what they signed is
    /// foreign then.
    pub(super) fn set_roster(&self, roster: Roster) -> bool {
        let mut known = self.known();
        if roster.as_of < known.roster.as_of {
            return false;
        }
        let anchors = |root: &Vec<u8>| Anchors::new(std::slice::from_ref(root)).ok();
        let usable =
            roster.former_roots.iter().filter_map(|(r, until)| Some((anchors(r)?, *until)));
        *known = Known { former: usable.collect(), roster };
        true
    }

    /// Returns the roots that the state names; none where there is no state here.
    pub(super) fn trust(&self) -> Option<Trust> {
        let trust = self.known().roster.trust.clone();
        (!trust.roots.is_empty()).then_some(trust)
    }

    /// Returns the managers that are reached at `address`, as far as the state says so: more than one
    /// where one has got another's.
    pub(super) fn managers_at(&self, address: &str) -> Vec<NodeId> {
        let known = self.known();
        let there = known.roster.addresses.iter().filter(|(_, it)| *it == address);
        there.map(|(node, _)| node.clone()).collect()
    }

    /// Returns how far a chain counts at this moment.
    pub(super) fn standing(
        &self,
        anchors: &Anchors,
        shown: Shown,
        chain: &[CertificateDer<'_>],
        now: Date,
    ) -> Result<Standing, Error> {
        let former: Vec<_> = {
            let known = self.known();
            let counts = known.former.iter().filter(|(_, until)| now <= *until);
            counts.map(|(anchors, _)| anchors.clone()).collect()
        };
        anchors.standing(&former, shown, chain, now)
    }

    /// Returns who shows a chain that a handshake has accepted; none where it names no node.
    pub(super) fn holder(
        &self,
        anchors: &Anchors,
        shown: Shown,
        chain: &[CertificateDer<'_>],
    ) -> Option<Holder> {
        let standing = self.standing(anchors, shown, chain, self.clock.date()).ok()?;
        let leaf = chain.first()?;
        Some(Holder {
            identity: Identity::from_certificate(leaf).ok()?,
            key_digest: pki::key_digest(leaf).ok()?,
            issued: pki::issued(leaf).ok()?,
            standing,
        })
    }

    /// Returns what a holder may be taken for now: its role as far as the state agrees with the
    /// certificate.
    pub(super) fn peer(&self, holder: &Holder) -> Peer {
        let (node, certified) = (&holder.identity.node, holder.identity.role);
        let known = self.known();
        let role = known.roster.role_of(node, certified, holder.issued);
        let excused = |ended: Date| {
            role == Role::Manager && known.roster.excuses(node, ended, self.clock.date())
        };
        let trusted = match holder.standing {
            // A manager may be the one that brings this state up to date.
            Standing { expired: None, former: false } if known.roster.may_have_forgotten(node) => {
                if role == Role::Manager {
                    Trusted::ToElect
                } else {
                    Trusted::ToRenew
                }
            }
            Standing { expired: None, former: false } => Trusted::Fully,
            Standing { expired: Some(ended), former: false } if excused(ended) => Trusted::ToElect,
            _ => Trusted::ToRenew,
        };
        Peer { identity: Identity { role, ..holder.identity.clone() }, trusted }
    }
}

impl Holder {
    /// Returns it as no more than a worker, whatever its certificate says.
    pub(super) fn into_worker(mut self) -> Self {
        self.identity.role = Role::Worker;
        self
    }

    /// Returns how far the certificate counted when it was shown.
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }
}

fn date(time: UnixTime) -> Date {
    Date::from_unix_seconds(time.as_secs())
}

fn chain<'a>(leaf: &CertificateDer<'a>, rest: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    [leaf].into_iter().chain(rest).cloned().collect()
}

/// What both ends check of a handshake beside the certificate.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("QUIC has no TLS 1.2".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// Judges who connects.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) judge: Arc<Judge>,
    pub(super) anchors: Anchors,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Members {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    /// A node that joins has no certificate yet, so one is asked for and not demanded; what can be
    /// done without one is `authorise`'s affair.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = chain(leaf, rest);
        self.judge.standing(&self.anchors, Shown::Member, &chain, date(now))?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}

/// Judges who is connected to: a manager, or, where it is only asked for managers, any member. One
/// whose certificate ran out is taken only by a manager that knows it as another: a worker waits
/// until it has a new one.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) shown: Shown,
    pub(super) judge: Arc<Judge>,
    pub(super) anchors: Anchors,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Answering {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = date(now);
        let chain = chain(leaf, rest);
        // No root of before: whoever broke it open could pose as the cluster.
        let standing = self.anchors.standing(&[], self.shown, &chain, now)?;
        let excused = match standing.expired {
            None => true,
            Some(ended) => Identity::from_certificate(leaf)
                .is_ok_and(|peer| self.judge.known().roster.excuses(&peer.node, ended, now)),
        };
        if excused {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::Expired))
        }
    }

    signatures!();
}

/// Takes any certificate whose key the server holds; its issuer is checked against the join token
/// before anything secret is sent.
#[derive(Debug)]
pub(super) struct Unchecked {
    pub(super) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}
