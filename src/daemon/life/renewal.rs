//! A member's next certificate: when to ask for it, and asking.
//!
//! Knows the files and the endpoint; when a certificate is due is `pki`'s affair, and who gets one
//! the leader's. While no manager answers the certificate stays, and the node goes on asking. A node
//! that was off past its certificate's life has no session before it has another, so that this is
//! the first thing it does; a manager that leads itself gives itself one.

use super::role;
use crate::{
    cluster::Class,
    daemon::{
        machine::host::SystemEntropy,
        member::credentials,
        membership::{MembershipError, remember},
        shared::Shared,
    },
    pki::{
        self, CaError, CertificateFiles, FileError, Identity, IdentityError, NodeFiles,
        RenewalPoint,
    },
    transport::{Endpoint, StreamError, TlsError},
    types::{Date, Entropy, Role, Trust},
    util::error::chain,
    wire::{StreamReply, StreamRequest},
};
use async_channel::{Receiver, Sender};
use futures_lite::FutureExt as _;
use std::{path::Path, sync::Weak, time::Duration};

/// How often the clock is looked at. A timer until the day itself would not notice that the wall
/// clock was set, and a certificate's shortest life, an hour, leaves half of one to renew in.
const LOOK: Duration = Duration::from_secs(5 * 60);

/// How soon a node that has no session without a new certificate asks again; doubles up to
/// [`LOOK`].
const RETRY: Duration = Duration::from_millis(500);

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
    #[error("the new certificate does not stand under the cluster's root: {0}")]
    Foreign(String),
    #[error("the new certificate cannot be used")]
    Tls(#[from] TlsError),
    #[error("the role that it is of cannot be taken")]
    Role(#[from] MembershipError),
}

/// Why a certificate is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It has come to its point.
    Due,
    /// It ran out.
    Expired(Date),
    /// A manager does not take it any more.
    Outdated,
    /// Another root is to sign it.
    Root,
}

/// What came of looking after the certificate.
#[derive(Debug, PartialEq, Eq)]
enum Renewal {
    /// The present one is good.
    Unneeded,
    /// There is another, good until then.
    Until(Date),
    /// There is another, of another role: to be kept by whoever has the node take that.
    Role(Box<NodeFiles>, Role),
}

/// Where managers say what is wanted of this node's certificate.
type Trusts = Receiver<(Trust, Duration)>;

/// Renews the certificate whenever it is time, until dropped; follows the cluster from one root to
/// the next; writes down now and then how late it has become, for a board that wakes up without a
/// clock.
///
/// A certificate of another role goes to `restart`, for the member to start anew with.
pub(crate) async fn run(
    shared: Weak<Shared>,
    endpoint: Endpoint,
    trusts: Trusts,
    restart: Sender<NodeFiles>,
) {
    let mut point = RenewalPoint::from_random(SystemEntropy.next_u64());
    let outdated = endpoint.outdated();
    let (mut told, mut failures, mut said) = (false, 0, String::new());
    let mut wanted: Option<Trust> = None;
    while let Some(shared) = shared.upgrade() {
        let (date, data_dir) = (shared.clock.date(), &shared.options.data_dir);
        let outcome = match &wanted {
            Some(trust) => {
                let followed = follow(data_dir, &endpoint, trust, date).await;
                followed.map_err(|error| (Some(Need::Root), error))
            }
            None => renew_if_due(data_dir, &endpoint, (point, told), date).await,
        };
        let outcome = match outcome {
            Ok(Renewal::Role(files, role)) => {
                match role::overtaken(&shared, &endpoint, role).await {
                    Ok(()) => return role::restart(&restart, *files),
                    Err(error) => Err((None, error.into())),
                }
            }
            other => other,
        };
        let mut wait = LOOK;
        match outcome {
            Ok(renewal) => {
                if let Renewal::Until(until) = renewal {
                    tracing::info!(%until, "the node's certificate was renewed");
                    point = RenewalPoint::from_random(SystemEntropy.next_u64());
                }
                (told, failures, wanted) = (false, 0, None);
            }
            Err((need, error)) => {
                failures += 1;
                if need != Some(Need::Due) {
                    wait = RETRY.saturating_mul(1 << failures.min(12)).min(LOOK);
                }
                let text = explain(need, &error);
                // Once is enough for what is tried often; and connections end with the root that they
                // were made by, so that the first attempt to say so may find none.
                if said != text && (need != Some(Need::Root) || failures > 2) {
                    tracing::warn!("{text}");
                    said = text;
                }
            }
        }
        remember(data_dir, date, TIME_KEPT);
        drop(shared);
        match woken(&outdated, &trusts, wait).await {
            Woken::Late => {}
            Woken::Outdated => {
                // Without a session nobody can be told that a root is followed.
                (told, wanted) = (true, None);
            }
            Woken::Told(trust, within) => {
                smol::Timer::after(within.mul_f64(rand::random())).await;
                wanted = Some(trust);
            }
        }
    }
}

enum Woken {
    Late,
    /// A manager does not take the certificate any more.
    Outdated,
    /// These are the roots, to be followed within that time.
    Told(Trust, Duration),
}

/// Waits for a manager's word, or so long.
async fn woken(outdated: &Receiver<()>, trusts: &Trusts, wait: Duration) -> Woken {
    let word = async {
        match outdated.recv().await {
            Ok(()) => Woken::Outdated,
            Err(_) => std::future::pending().await,
        }
    };
    let told = async {
        match trusts.recv().await {
            Ok((trust, within)) => Woken::Told(trust, within),
            // The member ends, and this with it.
            Err(_) => std::future::pending().await,
        }
    };
    let late = async {
        smol::Timer::after(wait).await;
        Woken::Late
    };
    word.or(told).or(late).await
}

/// Says why there is no new certificate, and what helps where asking again does not.
fn explain(need: Option<Need>, error: &RenewalError) -> String {
    let state = match need {
        Some(Need::Expired(ended)) => format!("this node's certificate ran out on {ended}, and "),
        Some(Need::Outdated) => {
            "no manager takes this node's certificate any more, and ".to_owned()
        }
        Some(Need::Root) => "the cluster's root is replaced, and ".to_owned(),
        Some(Need::Due) | None => String::new(),
    };
    let remedy = match error {
        RenewalError::Ask(StreamError::Refused(refusal))
            if refusal.class == Class::Unauthorized =>
        {
            "; containers go on, but this node is out until it is joined again: midge swarm leave \
             --force, then midge swarm join with a token of the cluster"
        }
        _ => "",
    };
    format!("{state}the certificate is not renewed yet: {}{remedy}", chain(error))
}

/// Returns why a new certificate is needed; none where the present one does.
fn need(
    files: &NodeFiles,
    (point, told): (RenewalPoint, bool),
    date: Date,
) -> Result<Option<Need>, IdentityError> {
    let life = pki::validity(&files.certificate)?;
    Ok(if date > life.not_after {
        Some(Need::Expired(life.not_after))
    } else if told {
        Some(Need::Outdated)
    } else {
        (date >= pki::renewal_point(life, point)).then_some(Need::Due)
    })
}

/// Asks for a new certificate where one is needed, and takes it over.
async fn renew_if_due(
    data_dir: &Path,
    endpoint: &Endpoint,
    when: (RenewalPoint, bool),
    date: Date,
) -> Result<Renewal, (Option<Need>, RenewalError)> {
    let store = CertificateFiles::under(data_dir);
    let Some(files) = store.load().map_err(|error| (None, error.into()))? else {
        return Ok(Renewal::Unneeded);
    };
    let need = need(&files, when, date).map_err(|error| (None, error.into()))?;
    if need.is_none() {
        return Ok(Renewal::Unneeded);
    }
    renew(&store, endpoint, files, date).await.map_err(|error| (need, error))
}

async fn renew(
    store: &CertificateFiles,
    endpoint: &Endpoint,
    mut files: NodeFiles,
    date: Date,
) -> Result<Renewal, RenewalError> {
    let (until, role) = ask(endpoint, &mut files, None, date).await?;
    if let Some(role) = role {
        return Ok(Renewal::Role(Box::new(files), role));
    }
    endpoint.set_identity(Some(&credentials(&files)))?;
    store.save(&files)?;
    Ok(Renewal::Until(until))
}

/// Goes by the roots that a manager named, with a certificate of the last of them, and says so.
async fn follow(
    data_dir: &Path,
    endpoint: &Endpoint,
    trust: &Trust,
    date: Date,
) -> Result<Renewal, RenewalError> {
    let store = CertificateFiles::under(data_dir);
    let (Some(mut files), Some(newest)) = (store.load()?, trust.roots.last()) else {
        return Ok(Renewal::Unneeded);
    };
    let before = files.clone();
    let alone = Trust { roots: vec![newest.clone()], cross_signed: trust.cross_signed.clone() };
    let mut renewal = Renewal::Unneeded;
    if pki::stands(&alone, &files.certificate, date).is_err() {
        let (until, role) = ask(endpoint, &mut files, Some(&alone), date).await?;
        renewal = Renewal::Until(until);
        if let Some(role) = role {
            // In that one it is told of the roots again, and says that it follows.
            files.trust = trust.clone();
            return Ok(Renewal::Role(Box::new(files), role));
        }
    }
    files.trust = trust.clone();
    if files != before {
        endpoint.set_identity(Some(&credentials(&files)))?;
        store.save(&files)?;
    }
    let root = pki::root_digest(newest);
    match endpoint.ask_manager(StreamRequest::Certified { root }, ANSWER_LIMIT).await? {
        StreamReply::Ready => Ok(renewal),
        _ => Err(RenewalError::Odd("something else than was asked for")),
    }
}

/// Puts the node's next certificate into its files, with the trust that comes along. It must stand
/// under `roots`, or else under that trust. Returns until when it is good, and its role where that is
/// another.
async fn ask(
    endpoint: &Endpoint,
    files: &mut NodeFiles,
    roots: Option<&Trust>,
    date: Date,
) -> Result<(Date, Option<Role>), RenewalError> {
    let (_, csr) = pki::new_key_and_request(Some(&files.key))?;
    let renewed = endpoint.renew(csr, ANSWER_LIMIT).await?;
    let checked = check(files, &renewed.certificate, date)?;
    files.certificate = renewed.certificate;
    if let Some(trust) = renewed.trust {
        files.trust = trust;
    }
    pki::stands(roots.unwrap_or(&files.trust), &files.certificate, date)
        .map_err(|error| RenewalError::Foreign(error.to_string()))?;
    Ok(checked)
}

/// Checks that a certificate is the next one of the node that has these files; returns until when
/// it is good, and its role where that is another.
fn check(
    files: &NodeFiles,
    certificate: &[u8],
    date: Date,
) -> Result<(Date, Option<Role>), RenewalError> {
    let (before, after) =
        (Identity::from_certificate(&files.certificate)?, Identity::from_certificate(certificate)?);
    if (&before.node, &before.cluster) != (&after.node, &after.cluster) {
        return Err(RenewalError::Odd("a certificate of another node"));
    }
    if pki::key_digest(&files.certificate)? != pki::key_digest(certificate)? {
        return Err(RenewalError::Odd("a certificate of another key"));
    }
    let validity = pki::validity(certificate)?;
    if !validity.contains(date) {
        return Err(RenewalError::Odd("a certificate that is not valid now"));
    }
    Ok((validity.not_after, (before.role != after.role).then_some(after.role)))
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

    const MANAGER: (u128, Role) = (1, Role::Manager);

    fn issue(root: &RootCa, csr: &[u8], (node, role): (u128, Role), date: Date) -> Vec<u8> {
        let (node, cluster) = (NodeId::from_bits(node), ClusterId::from_bits(7));
        pki::sign(root, csr, &Identity { node, role, cluster }, date, 90 * DAY).unwrap()
    }

    /// A manager that is its own worker, so that no packet is needed, and whose authority answers
    /// with certificates of `answer`.
    fn member(data_dir: &Path, root: &RootCa, date: Date, answer: (u128, Role)) -> Endpoint {
        let (key, csr) = pki::new_key_and_request(None).unwrap();
        let certificate = issue(root, &csr, MANAGER, date);
        let trust = Trust { roots: vec![root.certificate.clone()], cross_signed: Vec::new() };
        let files = NodeFiles { trust, certificate, key };
        CertificateFiles::under(data_dir).save(&files).unwrap();
        let (listen, clock) = ("127.0.0.1:0".parse().unwrap(), TrustedClock::fixed(date));
        let endpoint =
            Endpoint::bind(Config { listen, clock, resolver: Resolver::default() }).unwrap();
        endpoint.set_identity(Some(&credentials(&files))).unwrap();
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
            let endpoint = member(dir.path(), &root, date, MANAGER);
            connected(&endpoint).await;
            let point = RenewalPoint::from_random(0);
            let store = CertificateFiles::under(dir.path());
            let before = store.load().unwrap().unwrap();
            let early = renew_if_due(dir.path(), &endpoint, (point, false), date + 40 * DAY).await;
            assert_eq!(early.unwrap(), Renewal::Unneeded);
            assert_eq!(store.load().unwrap().unwrap(), before);
            let due = renew_if_due(dir.path(), &endpoint, (point, false), date + 60 * DAY).await;
            assert_eq!(due.unwrap(), Renewal::Until(date + 150 * DAY));
            let after = store.load().unwrap().unwrap();
            assert_eq!((after.key, after.trust), (before.key, before.trust));
            assert_ne!(after.certificate, before.certificate);
            let again = renew_if_due(dir.path(), &endpoint, (point, false), date + 60 * DAY).await;
            assert_eq!(again.unwrap(), Renewal::Unneeded, "the new one is young");
        });
    }

    #[test]
    fn a_certificate_of_another_node_is_not_taken() {
        smol::block_on(async {
            let (dir, date) = (tempfile::tempdir().unwrap(), pki::BUILD_DATE);
            let root = pki::create_root(date).unwrap();
            let endpoint = member(dir.path(), &root, date, (2, Role::Manager));
            connected(&endpoint).await;
            let before = CertificateFiles::under(dir.path()).load().unwrap();
            let point = RenewalPoint::from_random(0);
            let error = renew_if_due(dir.path(), &endpoint, (point, false), date + 60 * DAY)
                .await
                .unwrap_err();
            let (need, error) = error;
            assert_eq!(need, Some(Need::Due));
            assert_eq!(error.to_string(), "the manager's answer is a certificate of another node");
            assert_eq!(CertificateFiles::under(dir.path()).load().unwrap(), before);
        });
    }

    #[test]
    fn a_certificate_of_another_role_comes_with_the_role() {
        smol::block_on(async {
            let (dir, date) = (tempfile::tempdir().unwrap(), pki::BUILD_DATE);
            let root = pki::create_root(date).unwrap();
            let endpoint = member(dir.path(), &root, date, (1, Role::Worker));
            connected(&endpoint).await;
            let before = CertificateFiles::under(dir.path()).load().unwrap();
            let told = (RenewalPoint::from_random(0), true);
            let renewal = renew_if_due(dir.path(), &endpoint, told, date + 60 * DAY).await;
            let Ok(Renewal::Role(files, role)) = renewal else { panic!("{renewal:?}") };
            let identity = Identity::from_certificate(&files.certificate).unwrap();
            assert_eq!((role, identity.role), (Role::Worker, Role::Worker));
            assert_eq!(CertificateFiles::under(dir.path()).load().unwrap(), before, "not yet");
        });
    }
}
