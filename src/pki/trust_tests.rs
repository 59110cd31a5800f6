//! Every way in which a certificate is checked: by roots of now and of before, in time and after it.

use super::*;
use crate::types::{ClusterId, Date, NodeId, Role, RootCa, Trust};
use rustls_pki_types::CertificateDer;
use std::time::Duration;

const NOW: Date = Date::from_unix_seconds(1_795_000_000);
const DAY: Duration = Duration::from_secs(86_400);
const MEMBER: Standing = Standing { expired: None, former: false };

/// A certificate of `root`, good for 90 days from `date` on.
fn leaf(root: &RootCa, role: Role, date: Date) -> Vec<u8> {
    let (_, csr) = new_key_and_request(None).unwrap();
    let subject = Identity { node: NodeId::from_bits(7), role, cluster: ClusterId::from_bits(9) };
    sign(root, &csr, &subject, date, 90 * DAY).unwrap()
}

fn anchors(roots: &[&RootCa]) -> Anchors {
    let roots: Vec<_> = roots.iter().map(|root| root.certificate.clone()).collect();
    Anchors::new(&roots).unwrap()
}

fn judge(
    anchors: &Anchors,
    former: &[Anchors],
    chain: &[&Vec<u8>],
    now: Date,
) -> Result<Standing, String> {
    let chain: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    anchors.standing(former, Shown::Member, &chain, now).map_err(|error| error.to_string())
}

#[test]
fn both_sides_of_a_rotation_take_each_other() {
    let [old, new, next] = [0, 1, 2].map(|_| create_root(NOW).unwrap());
    let cross = cross_sign(&old, &new, NOW).unwrap();
    let again = cross_sign(&new, &next, NOW).unwrap();
    let (before, after) = (leaf(&old, Role::Manager, NOW), leaf(&new, Role::Manager, NOW));
    let last = leaf(&next, Role::Manager, NOW);
    let knows = |roots: &[&RootCa], chain: &[&Vec<u8>]| {
        let both = [Shown::Member, Shown::Manager].map(|shown| {
            let chain: Vec<_> =
                chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
            anchors(roots).standing(&[], shown, &chain, NOW).is_ok()
        });
        assert_eq!(both[0], both[1]);
        both[0]
    };
    assert!(knows(&[&old], &[&before]));
    assert!(knows(&[&old], &[&after, &cross]), "who knows the old root alone");
    assert!(!knows(&[&old], &[&after]), "needs to be shown why");
    for chain in [vec![&before], vec![&after, &cross], vec![&after], vec![&before, &cross]] {
        assert!(knows(&[&old, &new], &chain), "who knows both takes both");
    }
    assert!(knows(&[&new], &[&after, &cross]) && knows(&[&new], &[&after]));
    assert!(!knows(&[&new], &[&before]) && !knows(&[&new], &[&before, &cross]));
    // Two rotations later.
    assert!(knows(&[&old], &[&last, &again, &cross]));
    assert!(knows(&[&new], &[&last, &again, &cross]) && knows(&[&next], &[&last]));
    assert!(!knows(&[&next], &[&after, &cross]) && !knows(&[&old], &[&last, &cross]));
}

#[test]
fn only_the_date_is_ever_excused() {
    let [root, foreign, gone] = [0, 1, 2].map(|_| create_root(NOW - 400 * DAY).unwrap());
    let (now, before) = (anchors(&[&root]), anchors(&[&gone]));
    let old = leaf(&root, Role::Worker, NOW - 100 * DAY);
    let expired = Some(NOW - 10 * DAY);
    let standing = |expired, former| Ok(Standing { expired, former });
    assert_eq!(judge(&now, &[], &[&old], NOW), standing(expired, false));
    assert_eq!(judge(&now, &[], &[&old], NOW - 10 * DAY), Ok(MEMBER), "to its last second");
    assert!(judge(&now, &[], &[&leaf(&root, Role::Worker, NOW + DAY)], NOW).is_err());
    for date in [NOW, NOW - 100 * DAY] {
        assert!(
            judge(&now, std::slice::from_ref(&before), &[&leaf(&foreign, Role::Worker, date)], NOW)
                .is_err()
        );
    }
    assert_eq!(
        judge(&now, std::slice::from_ref(&before), &[&leaf(&gone, Role::Worker, NOW)], NOW),
        standing(None, true)
    );
    assert_eq!(
        judge(
            &now,
            std::slice::from_ref(&before),
            &[&leaf(&gone, Role::Worker, NOW - 100 * DAY)],
            NOW
        ),
        standing(expired, true)
    );
    assert!(judge(&now, &[], &[&leaf(&gone, Role::Worker, NOW)], NOW).is_err());
    assert!(judge(&now, &[], &[], NOW).is_err());
}

#[test]
fn a_worker_is_no_manager_in_either_role() {
    let root = create_root(NOW).unwrap();
    let worker = leaf(&root, Role::Worker, NOW);
    let chain = [CertificateDer::from(worker.as_slice())];
    assert!(anchors(&[&root]).standing(&[], Shown::Manager, &chain, NOW).is_err());
    assert!(anchors(&[&root]).standing(&[], Shown::Member, &chain, NOW).is_ok());
}

#[test]
fn what_stands_is_what_others_take() {
    let [old, new] = [0, 1].map(|_| create_root(NOW).unwrap());
    let cross_signed = vec![cross_sign(&old, &new, NOW).unwrap()];
    let trust = Trust { roots: vec![new.certificate.clone()], cross_signed };
    let certificate = leaf(&new, Role::Worker, NOW);
    assert!(stands(&trust, &certificate, NOW).is_ok());
    assert!(stands(&trust, &certificate, NOW + 91 * DAY).is_err());
    assert!(stands(&trust, &leaf(&old, Role::Worker, NOW), NOW).is_err());
    assert!(stands(&Trust::default(), &certificate, NOW).is_err());
}

/// An authority as somebody makes it with a tool of their own.
fn authority(name: rcgen::DnValue, life: i32) -> (String, String, Vec<u8>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(life, 1, 1);
    let der = params.self_signed(&key).unwrap().der().to_vec();
    (to_pem("CERTIFICATE", &der), to_pem("PRIVATE KEY", &key.serialize_der()), der)
}

#[test]
fn a_root_of_the_users_is_taken_and_vouched_for() {
    let old = create_root(NOW).unwrap();
    let utf8 = rcgen::DnValue::Utf8String("swarm-ca".to_owned());
    let printable = rcgen::DnValue::PrintableString("swarm-ca".try_into().unwrap());
    for name in [utf8.clone(), printable] {
        let (certificate, key, der) = authority(name, 2060);
        let root = adopt_root(&certificate, &key, NOW).unwrap();
        assert_eq!((&root.certificate, root.digest), (&der, root_digest(&der)));
        let cross = cross_sign(&old, &root, NOW).unwrap();
        let node = leaf(&root, Role::Manager, NOW);
        assert_eq!(judge(&anchors(&[&old]), &[], &[&node, &cross], NOW), Ok(MEMBER));
        assert_eq!(judge(&anchors(&[&root]), &[], &[&node], NOW), Ok(MEMBER));
    }
    let (certificate, key, _) = authority(utf8.clone(), 2060);
    let (_, other, _) = authority(utf8.clone(), 2060);
    let refused = |certificate: &str, key: &str| adopt_root(certificate, key, NOW).unwrap_err();
    assert_eq!(refused("hello", &key), AdoptError::Pem("certificate"));
    assert_eq!(refused(&certificate, &certificate), AdoptError::Pem("key"));
    assert_eq!(refused(&certificate, &other), AdoptError::OtherKey);
    let (past, its_key, _) = authority(utf8, 2021);
    assert!(matches!(refused(&past, &its_key), AdoptError::Expired { .. }));
    let (named, its_key, _) = authority(rcgen::DnValue::Utf8String("mine".to_owned()), 2060);
    assert_eq!(refused(&named, &its_key), AdoptError::Name);
}
