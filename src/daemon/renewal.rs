//! A member's next certificate: when to ask for it, and asking.
//!
//! Knows the files and the endpoint; when a certificate is due is `pki`'s affair, and who gets one
//! the leader's. While no manager answers the certificate stays, and the node goes on asking.

use super::{Shared, host::SystemEntropy, swarm};
use crate::{
    pki::{self, CaError, CertificateFiles, FileError, Identity, IdentityError, RenewalPoint},
    runtime::image::chain,
    transport::{Credentials, Endpoint, StreamError, TlsError},
    types::{Date, Entropy},
    wire::{StreamReply, StreamRequest},
};
use std::{path::Path, sync::Weak, time::Duration};

/// How often the clock is looked at. A timer until the day itself would not notice that the wall
/// clock was set, and a certificate's shortest life, an hour, leaves half of one to renew in.
const LOOK: Duration = Duration::from_secs(5 * 60);

/// How long a manager may take to answer: a signature, and the way over a slow link.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How old the time on disk may become while the daemon runs: certificates live for months, so a
/// day more or less decides nothing, and one small write a day is nothing to a card.
const TIME_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// There is no new certificate.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error("cannot read or write the node's certificate")]
    Files(#[from] FileError),
    #[error("cannot make the request for a certificate")]
    Request(#[from] CaError),
    #[error("no manager gave a certificate")]
    Ask(#[from] StreamError),
    #[error("the manager's answer is no certificate of this node")]
    Certificate(#[from] IdentityError),
    #[error("the manager's answer is {0}")]
    Odd(&'static str),
    #[error("the new certificate cannot be used")]
    Tls(#[from] TlsError),
}

/// Renews the certificate whenever it is time, until dropped; writes down now and then how late it
/// has become, for a board that wakes up without a clock.
pub(super) async fn run(shared: Weak<Shared>, endpoint: Endpoint) {
    let mut point = RenewalPoint::from_random(SystemEntropy.next_u64());
    while let Some(shared) = shared.upgrade() {
        match renew_if_due(&shared.options.data_dir, &endpoint, point, shared.clock.date()).await {
            Ok(Some(until)) => {
                tracing::info!(%until, "the node's certificate was renewed");
                point = RenewalPoint::from_random(SystemEntropy.next_u64());
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = chain(&error), "the node's certificate is not renewed yet");
            }
        }
        swarm::remember(&shared, TIME_KEPT);
        drop(shared);
        smol::Timer::after(LOOK).await;
    }
}

/// Asks for a new certificate where the present one has come to its point, and takes it over.
/// Returns until when the new one is good.
async fn renew_if_due(
    data_dir: &Path,
    endpoint: &Endpoint,
    point: RenewalPoint,
    date: Date,
) -> Result<Option<Date>, RenewalError> {
    let store = CertificateFiles::under(data_dir);
    let Some(mut files) = store.load()? else { return Ok(None) };
    if date < pki::renewal_point(pki::validity(&files.certificate)?, point) {
        return Ok(None);
    }
    let (_, csr) = pki::new_key_and_request(Some(&files.key))?;
    let reply = endpoint.ask_manager(StreamRequest::Renew { csr }, ANSWER_LIMIT).await?;
    let StreamReply::Certificate(certificate) = reply else {
        return Err(RenewalError::Odd("something else than a certificate"));
    };
    let (before, after) = (
        Identity::from_certificate(&files.certificate)?,
        Identity::from_certificate(&certificate)?,
    );
    if (&before.node, &before.cluster) != (&after.node, &after.cluster) {
        return Err(RenewalError::Odd("a certificate of another node"));
    }
    if before.role != after.role {
        // Another role is more than another certificate.
        return Err(RenewalError::Odd("a certificate of another role, which it is told to take"));
    }
    if pki::key_digest(&files.certificate)? != pki::key_digest(&certificate)? {
        return Err(RenewalError::Odd("a certificate of another key"));
    }
    let validity = pki::validity(&certificate)?;
    if !validity.contains(date) {
        return Err(RenewalError::Odd("a certificate that is not valid now"));
    }
    files.certificate = certificate;
    endpoint.set_identity(Some(&Credentials {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        root: files.root.clone(),
    }))?;
    store.save(&files)?;
    Ok(Some(validity.not_after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pki::{NodeFiles, TrustedClock},
        transport::{Config, Handler, Managers},
        types::{ClusterId, NodeId, Role, RootCa},
        util::dns::Resolver,
    };
    use std::sync::Arc;

    const DAY: Duration = Duration::from_secs(24 * 3_600);

    fn identity(node: u128) -> Identity {
        let (node, cluster) = (NodeId::from_bits(node), ClusterId::from_bits(7));
        Identity { node, role: Role::Manager, cluster }
    }

    fn issue(root: &RootCa, csr: &[u8], node: u128, date: Date) -> Vec<u8> {
        pki::sign(root, csr, &identity(node), date, 90 * DAY).unwrap()
    }

    /// A manager that is its own worker, so that no packet is needed, and whose authority answers
    /// with certificates of `answer`.
    fn member(data_dir: &Path, root: &RootCa, date: Date, answer: u128) -> Endpoint {
        let (key, csr) = pki::new_key_and_request(None).unwrap();
        let certificate = issue(root, &csr, 1, date);
        let files = NodeFiles { root: root.certificate.clone(), certificate, key };
        CertificateFiles::under(data_dir).save(&files).unwrap();
        let (listen, clock) = ("127.0.0.1:0".parse().unwrap(), TrustedClock::fixed(date));
        let endpoint =
            Endpoint::bind(Config { listen, clock, resolver: Resolver::default() }).unwrap();
        let NodeFiles { root: certificate_of_root, certificate, key } = files;
        let credentials = Credentials { certificate, key, root: certificate_of_root };
        endpoint.set_identity(Some(&credentials)).unwrap();
        let root = root.clone();
        let handler: Handler = Arc::new(move |stream| {
            let root = root.clone();
            Box::pin(async move {
                let StreamRequest::Renew { csr } = stream.request.clone() else { return };
                let reply = StreamReply::Certificate(issue(&root, &csr, answer, date + 60 * DAY));
                stream.answer(&reply).await.unwrap();
            })
        });
        endpoint.set_handler(handler);
        endpoint.set_leader(crate::types::LeaderAt::Here);
        let (address, others) = ("127.0.0.1".to_owned(), Vec::new());
        endpoint.set_managers(Managers::Local { address, others });
        endpoint
    }

    async fn connected(endpoint: &Endpoint) {
        loop {
            let late = async {
                smol::Timer::after(Duration::from_secs(10)).await;
                panic!("no session with itself");
            };
            let input = futures_lite::future::or(endpoint.inputs().recv(), late).await.unwrap();
            if matches!(input, crate::types::PeerInput::Connected) {
                return;
            }
        }
    }

    #[test]
    fn a_certificate_is_renewed_in_the_second_half_of_its_life() {
        smol::block_on(async {
            let (dir, date) = (tempfile::tempdir().unwrap(), pki::BUILD_DATE);
            let root = pki::create_root(date).unwrap();
            let endpoint = member(dir.path(), &root, date, 1);
            connected(&endpoint).await;
            let point = RenewalPoint::from_random(0);
            let store = CertificateFiles::under(dir.path());
            let before = store.load().unwrap().unwrap();
            let early = renew_if_due(dir.path(), &endpoint, point, date + 40 * DAY).await;
            assert_eq!(early.unwrap(), None);
            assert_eq!(store.load().unwrap().unwrap(), before);
            let due = renew_if_due(dir.path(), &endpoint, point, date + 60 * DAY).await;
            assert_eq!(due.unwrap(), Some(date + 150 * DAY));
            let after = store.load().unwrap().unwrap();
            assert_eq!((after.key, after.root), (before.key, before.root));
            assert_ne!(after.certificate, before.certificate);
            let again = renew_if_due(dir.path(), &endpoint, point, date + 60 * DAY).await;
            assert_eq!(again.unwrap(), None, "the new one is young");
        });
    }

    #[test]
    fn a_certificate_of_another_node_is_not_taken() {
        smol::block_on(async {
            let (dir, date) = (tempfile::tempdir().unwrap(), pki::BUILD_DATE);
            let root = pki::create_root(date).unwrap();
            let endpoint = member(dir.path(), &root, date, 2);
            connected(&endpoint).await;
            let before = CertificateFiles::under(dir.path()).load().unwrap();
            let point = RenewalPoint::from_random(0);
            let error =
                renew_if_due(dir.path(), &endpoint, point, date + 60 * DAY).await.unwrap_err();
            assert_eq!(error.to_string(), "the manager's answer is a certificate of another node");
            assert_eq!(CertificateFiles::under(dir.path()).load().unwrap(), before);
        });
    }
}
