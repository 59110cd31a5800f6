//! What a stranger shows before anything is trusted: join tokens, certificates, signing requests.

use super::{Identity, TokenText, key_digest, request_key_digest, validity};
use crate::{types::JoinToken, util::fuzz};

#[test]
fn join_tokens() {
    let token = |byte| TokenText { root_digest: [byte; 32], secret: JoinToken(u128::MAX / 3) };
    let seeds = [0, 1, 255].map(|byte| token(byte).to_string().into_bytes());
    fuzz::check("join_tokens", &seeds, |bytes| {
        let token = TokenText::parse(std::str::from_utf8(bytes).ok()?).ok()?;
        assert_eq!(TokenText::parse(&token.to_string()), Ok(token));
        Some(())
    });
}

#[test]
fn certificates() {
    fuzz::check("certificates", &[], |bytes| {
        let identity = Identity::from_certificate(bytes);
        let life = validity(bytes);
        // One is a certificate where the other is.
        assert_eq!(life.is_ok(), key_digest(bytes).is_ok());
        assert!(life.is_ok() || identity.is_err());
        identity.ok().map(drop)
    });
}

#[test]
fn signing_requests() {
    fuzz::check("signing_requests", &[], |bytes| request_key_digest(bytes).ok().map(drop));
}
