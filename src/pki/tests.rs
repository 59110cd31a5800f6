use super::*;
use crate::types::{ClusterId, Date, JoinToken, NodeId, Role, Trust};
use proptest::prelude::*;
use std::{os::unix::fs::PermissionsExt as _, time::Duration};

const NOW: Date = Date::from_unix_seconds(1_795_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn subject(role: Role) -> Identity {
    Identity { node: NodeId::from_bits(7), role, cluster: ClusterId::from_bits(9) }
}

#[test]
fn a_signed_certificate_names_its_node() {
    let root = create_root(NOW).unwrap();
    for role in [Role::Worker, Role::Manager] {
        let (_key, csr) = new_key_and_request(None).unwrap();
        let der = sign(&root, &csr, &subject(role), NOW, 90 * DAY).unwrap();
        assert_eq!(Identity::from_certificate(&der).unwrap(), subject(role));
        assert_eq!(key_digest(&der).unwrap(), request_key_digest(&csr).unwrap());
        let validity = validity(&der).unwrap();
        assert_eq!(validity.not_before, NOW - Duration::from_secs(3_600));
        assert_eq!(validity.not_after, NOW + 90 * DAY);
        let text = x509(&der);
        assert_eq!(text.contains("swarm-ca"), role == Role::Manager, "{text}");
    }
}

/// Lists a certificate's DNS names.
fn x509(der: &[u8]) -> String {
    use x509_parser::prelude::FromDer as _;
    let (_, certificate) = x509_parser::prelude::X509Certificate::from_der(der).unwrap();
    format!("{:?}", certificate.subject_alternative_name().unwrap().unwrap().value.general_names)
}

#[test]
fn the_root_is_good_for_twenty_years_and_names_no_node() {
    let root = create_root(NOW).unwrap();
    let life = validity(&root.certificate).unwrap();
    assert!(life.contains(NOW + 20 * 365 * DAY) && !life.contains(NOW + 20 * 366 * DAY));
    assert_eq!(Identity::from_certificate(&root.certificate), Err(IdentityError::Authority));
}

#[test]
fn a_request_keeps_its_key_and_a_damaged_one_is_refused() {
    let (key, csr) = new_key_and_request(None).unwrap();
    let (again, second) = new_key_and_request(Some(&key)).unwrap();
    assert_eq!(again, key);
    assert_eq!(request_key_digest(&csr).unwrap(), request_key_digest(&second).unwrap());
    let mut damaged = csr.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let root = create_root(NOW).unwrap();
    let refused = sign(&root, &damaged, &subject(Role::Worker), NOW, DAY);
    assert!(matches!(refused, Err(CaError::InvalidRequest(_))), "{refused:?}");
    assert!(request_key_digest(&[0; 5_000]).is_err());
}

#[test]
fn only_a_p256_key_is_signed() {
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&other).unwrap();
    assert!(matches!(request_key_digest(csr.der()), Err(CaError::InvalidRequest(_))));
}

#[test]
fn an_identity_is_read_strictly() {
    let make = |fields: &[(rcgen::DnType, &str)]| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in fields {
            params.distinguished_name.push(kind.clone(), *value);
        }
        Identity::from_certificate(params.self_signed(&key).unwrap().der())
    };
    use rcgen::DnType::{CommonName, OrganizationName, OrganizationalUnitName};
    let id = "a".repeat(25);
    let good = [
        (CommonName, id.as_str()),
        (OrganizationalUnitName, "swarm-worker"),
        (OrganizationName, id.as_str()),
    ];
    assert!(make(&good).is_ok());
    for (at, bad) in [(0, "A"), (1, "swarm-ca"), (1, "swarm-manager "), (2, "")] {
        let mut fields = good.clone();
        fields[at].1 = bad;
        assert!(matches!(make(&fields), Err(IdentityError::Field { .. })), "{fields:?}");
    }
    assert!(make(&good[..2]).is_err());
    assert!(matches!(Identity::from_certificate(b"x"), Err(IdentityError::Malformed(_))));
}

#[test]
fn tokens_that_are_none_say_why() {
    let token = TokenText { root_digest: [0xab; 32], secret: JoinToken(u128::MAX) };
    let text = token.to_string();
    assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
    assert_eq!(TokenText::parse(&format!(" {text}\n")), Ok(token));
    let error = |text: &str| TokenText::parse(text).unwrap_err();
    assert_eq!(error("hello"), TokenError::NotAToken);
    assert_eq!(error(""), TokenError::NotAToken);
    assert_eq!(error(&text.replacen("-1-", "-2-", 1)), TokenError::WrongVersion("2".into()));
    let cut = |part, expected, found| TokenError::Truncated { part, expected, found };
    assert_eq!(error(&text[..text.len() - 1]), cut("secret", 25, 24));
    assert_eq!(error(&text[..30]), cut("digest", 50, 21));
    assert_eq!(error("SWMTKN-1"), cut("digest", 50, 0));
    assert!(matches!(error(&format!("{text}0")), TokenError::TooLong { part: "secret", .. }));
    assert!(matches!(error(&format!("{text}-x")), TokenError::TooLong { part: "secret", .. }));
    let shouted = format!("{}F", &text[..text.len() - 1]);
    assert_eq!(error(&shouted), TokenError::BadCharacters { part: "secret" });
    // Digits that stand for more than 128 bits.
    let much = format!("{}{}", &text[..text.len() - 25], "z".repeat(25));
    assert_eq!(error(&much), TokenError::BadCharacters { part: "secret" });
}

#[test]
fn the_secret_is_written_as_swarm_writes_it() {
    let token = TokenText { root_digest: [0; 32], secret: JoinToken(36) };
    let expected = format!("SWMTKN-1-{}-{}10", "0".repeat(50), "0".repeat(23));
    assert_eq!(token.to_string(), expected);
}

proptest! {
    #[test]
    fn every_token_reads_back(digest: [u8; 32], secret: u128) {
        let token = TokenText { root_digest: digest, secret: JoinToken(secret) };
        prop_assert_eq!(TokenText::parse(&token.to_string()), Ok(token));
    }

    #[test]
    fn no_text_panics(text in ".{0,120}") {
        let _outcome = TokenText::parse(&text);
        let _outcome = TokenText::parse(&format!("SWMTKN-1-{text}"));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _outcome = Identity::from_certificate(&bytes);
        let _outcome = request_key_digest(&bytes);
    }

    #[test]
    fn renewal_lies_between_half_and_four_fifths(bits: u64, days in 1u64..4_000) {
        let life = Validity { not_before: NOW, not_after: NOW + Duration::from_secs(days * 86_400) };
        let at = renewal_point(life, RenewalPoint::from_random(bits)).since(NOW).as_secs();
        prop_assert!(at >= days * 86_400 / 2 && at <= days * 86_400 * 8 / 10);
    }
}

#[test]
fn the_trusted_clock_never_falls_behind_what_has_passed() {
    let future = Date::from_unix_seconds(4_000_000_000);
    assert_eq!(TrustedClock::system(future).date(), future);
    assert!(TrustedClock::system(Date::EPOCH).date() >= BUILD_DATE);
}

#[test]
fn an_identity_survives_on_disk_with_a_private_key() {
    let folder = tempfile::tempdir().unwrap();
    let files = CertificateFiles::under(folder.path());
    assert_eq!(files.load().unwrap(), None);
    let (key, _csr) = new_key_and_request(None).unwrap();
    files.save_key(&key).unwrap();
    assert_eq!(files.load().unwrap(), None, "a key alone is no membership");
    assert_eq!(files.load_key().unwrap(), Some(key.clone()));
    let one = Trust { roots: vec![vec![1; 700]], cross_signed: Vec::new() };
    let more = Trust { roots: vec![vec![1; 700], vec![3; 9]], cross_signed: vec![vec![4; 70]] };
    for trust in [one, more] {
        let identity = NodeFiles { trust, certificate: vec![2; 701], key: key.clone() };
        files.save(&identity).unwrap();
        assert_eq!(files.load().unwrap(), Some(identity));
    }
    let path = folder.path().join("certificates/swarm-node.key");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&path, "nonsense").unwrap();
    assert!(matches!(files.load(), Err(FileError::Damaged { .. })));
    files.remove().unwrap();
    files.remove().unwrap();
    assert_eq!(files.load().unwrap(), None);
}
