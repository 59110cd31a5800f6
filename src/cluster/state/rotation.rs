//! How the root is replaced: begun, and ended.

use super::{State, apply::At};
use crate::{
    cluster::command::{Applied, Rejected},
    types::{FORMER_ROOTS_MAX, FormerRoot, RootRotation},
};

impl State {
    /// Begins to replace the root with the digest `base`; what was begun before is given up.
    pub(super) fn rotate_root(
        &mut self,
        at: At,
        base: &[u8; 32],
        rotation: &RootRotation,
    ) -> Result<Applied, Rejected> {
        self.change_cluster(at, |cluster| {
            if cluster.root.digest != *base {
                return Err(Rejected::OutOfSequence);
            }
            let known =
                cluster.former_roots.iter().any(|it| it.certificate == rotation.root.certificate);
            if known || cluster.root.digest == rotation.root.digest {
                let text = "the cluster has or had this root already";
                return Err(Rejected::Precondition(text.to_owned()));
            }
            cluster.rotation = Some(rotation.clone());
            Ok(())
        })
    }

    /// The next root takes the place of the present one, whose key is forgotten.
    pub(super) fn finish_rotation(&mut self, at: At, next: &[u8; 32]) -> Result<Applied, Rejected> {
        self.change_cluster(at, |cluster| {
            let fits = |rotation: &RootRotation| rotation.root.digest == *next;
            let Some(rotation) = cluster.rotation.take_if(|rotation| fits(rotation)) else {
                let text = "the root is not being replaced by this one any more";
                return Err(Rejected::Precondition(text.to_owned()));
            };
            let before = std::mem::replace(&mut cluster.root, rotation.root);
            let former = FormerRoot {
                certificate: before.certificate,
                cross_signed: rotation.cross_signed,
                ended: at.date,
            };
            let grace = cluster.spec.rejoin_grace;
            cluster.former_roots.retain(|it| at.date.since(it.ended) <= grace);
            cluster.former_roots.insert(0, former);
            cluster.former_roots.truncate(FORMER_ROOTS_MAX);
            cluster.tokens = rotation.tokens;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{Change, Command, State, leader::tests::World},
        types::{Date, JoinToken, JoinTokens, RootCa},
    };
    use std::time::Duration;

    fn root(byte: u8) -> RootCa {
        RootCa { certificate: vec![byte; 3], key: vec![byte; 2], digest: [byte; 32] }
    }

    fn rotation(byte: u8) -> Box<RootRotation> {
        let token = |bits| JoinToken(u128::from(byte) + bits);
        Box::new(RootRotation {
            root: root(byte),
            cross_signed: vec![byte; 4],
            tokens: JoinTokens { worker: token(0), manager: token(1) },
        })
    }

    struct Log(State, Date);

    impl Log {
        fn apply(&mut self, change: Change) -> Result<Applied, Rejected> {
            let mut next = self.0.applied();
            next.index += 1;
            let command = Command { request: None, term: 1, date: self.1, change };
            self.0.apply(next, 1, &command)
        }

        fn rotate(&mut self, to: u8) -> Result<Applied, Rejected> {
            let base = self.0.cluster().expect("a cluster").root.digest;
            self.apply(Change::RotateRoot { base, rotation: rotation(to) })
        }
    }

    fn log() -> Log {
        Log(World::new(1).state, Date::from_unix_seconds(3_000_000))
    }

    #[test]
    fn both_roots_count_until_the_new_one_does_alone() {
        let mut log = log();
        let before = log.0.cluster().expect("a cluster").clone();
        assert!(log.rotate(80).is_ok());
        let during = log.0.cluster().expect("a cluster").clone();
        assert_eq!((&during.root, during.tokens), (&before.root, before.tokens));
        assert_eq!(during.signing_root(), &root(80));
        assert_eq!(during.trust().roots, [before.root.certificate.clone(), vec![80; 3]]);
        assert_eq!(during.trust().cross_signed, [vec![80; 4]]);
        assert!(log.0.roster().former_roots.is_empty());
        assert!(log.apply(Change::FinishRootRotation { root: [80; 32] }).is_ok());
        let after = log.0.cluster().expect("a cluster").clone();
        assert_eq!((&after.root, after.signing_root()), (&root(80), &root(80)));
        assert_eq!((after.tokens, after.rotation.clone()), (rotation(80).tokens, None));
        assert_eq!(after.trust().roots, [vec![80; 3]]);
        assert_eq!(after.trust().cross_signed, [vec![80; 4]], "still shown to who was away");
        let until = log.1 + after.spec.rejoin_grace;
        assert_eq!(log.0.roster().former_roots, [(before.root.certificate, until)]);
        let again = log.apply(Change::FinishRootRotation { root: [80; 32] });
        assert!(matches!(again, Err(Rejected::Precondition(_))), "{again:?}");
    }

    #[test]
    fn a_second_rotation_takes_the_place_of_one_under_way() {
        let mut log = log();
        assert!(log.rotate(80).is_ok() && log.rotate(81).is_ok());
        assert!(log.apply(Change::FinishRootRotation { root: [80; 32] }).is_err());
        assert!(log.apply(Change::FinishRootRotation { root: [81; 32] }).is_ok());
        let stale = log.apply(Change::RotateRoot { base: [80; 32], rotation: rotation(82) });
        assert_eq!(stale, Err(Rejected::OutOfSequence));
        assert!(log.rotate(81).is_err(), "it is the root");
    }

    #[test]
    fn roots_of_before_are_forgotten_after_the_grace_and_beyond_their_number() {
        let mut log = log();
        for byte in 100..112 {
            assert!(log.rotate(byte).is_ok());
            assert!(log.apply(Change::FinishRootRotation { root: [byte; 32] }).is_ok());
        }
        let cluster = log.0.cluster().expect("a cluster").clone();
        assert_eq!(cluster.former_roots.len(), FORMER_ROOTS_MAX);
        assert_eq!(cluster.former_roots[0].certificate, [110; 3]);
        assert_eq!(cluster.trust().cross_signed[0], [111; 4]);
        log.1 = log.1 + cluster.spec.rejoin_grace + Duration::from_secs(1);
        assert!(log.rotate(112).is_ok());
        assert!(log.apply(Change::FinishRootRotation { root: [112; 32] }).is_ok());
        assert_eq!(log.0.cluster().expect("a cluster").former_roots.len(), 1);
    }
}
