//! The cluster itself: its options, its root certificate, its join tokens.

use super::{ClusterId, Date, Entropy, FormerRoot, Role, RootRotation, Trust, Version};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// How many tasks of a slot are kept, the live one included, as Swarm's.
pub const TASK_HISTORY_LIMIT: i64 = 5;

/// How often a worker tells the manager that it lives. A node is Down after three of these, 5.4 s
/// after its last word. An idle worker sends 33 beats a minute of 114 bytes with UDP's and IP's
/// headers (86 are QUIC's), and acknowledges about 20 of the manager's answers on their own with
/// 70 bytes: 5.2 KB; what comes back is less. A shorter period would exceed 6 KB each way.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_millis(1_800);

/// How long a node's certificate is good for, as Swarm's.
pub const NODE_CERT_EXPIRY: Duration = Duration::from_secs(90 * 24 * 3_600);

/// The shortest life of a node's certificate, as Swarm's.
pub const NODE_CERT_EXPIRY_MIN: Duration = Duration::from_secs(3_600);

/// How long managers do without a word of their leader before they elect another: each draws a
/// time between this and a third more, so a dead leader is followed within 1.2 s. A leader is heard
/// of three times in that span, and a commit on a slow SD card, which holds up its voice for some
/// 200 ms, unseats nobody. Managers whose round trip is longer than a quarter of it need more.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(900);

/// How long after its certificate ran out a node is still known by its key, and given another: a
/// board that lay in a drawer over the winter comes back by itself. What a thief can do with a key
/// ends when the node is removed, not when its certificate does.
pub const REJOIN_GRACE: Duration = Duration::from_secs(365 * 24 * 3_600);

/// How many roots of before are remembered: each is a certificate that managers show to everybody
/// who connects.
pub const FORMER_ROOTS_MAX: usize = 8;

/// What a user sets of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// How many tasks of a slot are kept; negative keeps all.
    pub task_history_limit: i64,
    /// How often workers tell that they live; a node is Down after three of these.
    pub heartbeat_period: Duration,
    /// How long new node certificates are good for.
    pub node_cert_expiry: Duration,
    /// Log entries between snapshots.
    pub snapshot_interval: u64,
    /// How long managers do without a word of their leader before they elect another.
    pub election_timeout: Duration,
    /// Whether a manager that was restarted needs the unlock key.
    pub autolock: bool,
    /// How long after its certificate ran out a node may renew it with its old key.
    pub rejoin_grace: Duration,
    /// Counts how often the root was told to be replaced: a higher number than before does it.
    pub force_rotate: u64,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            task_history_limit: TASK_HISTORY_LIMIT,
            heartbeat_period: HEARTBEAT_PERIOD,
            node_cert_expiry: NODE_CERT_EXPIRY,
            snapshot_interval: 10_000,
            election_timeout: ELECTION_TIMEOUT,
            autolock: false,
            rejoin_grace: REJOIN_GRACE,
            force_rotate: 0,
        }
    }
}

/// The cluster's root certificate and its key. Only managers ever hold it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCa {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The private key, PKCS #8 DER.
    pub key: Vec<u8>,
    /// SHA-256 of `certificate`: the digest in every join token.
    pub digest: [u8; 32],
}

impl fmt::Debug for RootCa {
    /// Leaves the key out, so that no log ever holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCa").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// The secret half of a join token: 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken(pub u128);

impl fmt::Debug for JoinToken {
    /// Leaves the secret out, so that no log ever holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

/// What opens the key that seals a locked manager's log: 256 bits, known to people only.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockKey(pub [u8; 32]);

impl fmt::Debug for UnlockKey {
    /// Leaves the secret out, so that no log ever holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(..)")
    }
}

impl UnlockKey {
    /// Draws a fresh key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; 32];
        for half in bytes.chunks_mut(16) {
            half.copy_from_slice(&entropy.next_u128().to_le_bytes());
        }
        Self(bytes)
    }
}

/// One secret a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokens {
    /// Admits workers.
    pub worker: JoinToken,
    /// Admits managers.
    pub manager: JoinToken,
}

impl JoinTokens {
    /// Returns the role that `secret` admits to. Both comparisons are made whatever the first
    /// says, and each looks at every bit, so that the time tells nothing.
    #[must_use]
    pub fn admits(&self, secret: JoinToken) -> Option<Role> {
        let differs = |token: JoinToken| std::hint::black_box(token.0 ^ secret.0);
        match (differs(self.worker), differs(self.manager)) {
            (0, _) => Some(Role::Worker),
            (_, 0) => Some(Role::Manager),
            _ => None,
        }
    }
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id, the O of every certificate.
    pub id: ClusterId,
    /// When it was last written.
    pub version: Version,
    /// When it was made.
    pub created: Date,
    /// When it was last written, in wall-clock time.
    pub updated: Date,
    /// What a user sets.
    pub spec: ClusterSpec,
    /// Its root.
    pub root: RootCa,
    /// What admits new nodes.
    pub tokens: JoinTokens,
    /// What opens a locked manager; there while managers lock themselves.
    pub unlock_key: Option<UnlockKey>,
    /// The root that is to replace the present one; there while it does.
    pub rotation: Option<RootRotation>,
    /// Roots of before, the latest first.
    pub former_roots: Vec<FormerRoot>,
}

impl Cluster {
    /// Returns the root that signs: the next one from the moment on that there is one.
    #[must_use]
    pub fn signing_root(&self) -> &RootCa {
        self.rotation.as_ref().map_or(&self.root, |rotation| &rotation.root)
    }

    /// Returns what every node is to know of the roots.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let next = self.rotation.as_ref();
        let root = |root: &RootCa| root.certificate.clone();
        let former = self.former_roots.iter().map(|former| former.cross_signed.clone());
        let mut roots = vec![root(&self.root)];
        roots.extend(next.map(|rotation| root(&rotation.root)));
        let cross_signed = next.map(|rotation| rotation.cross_signed.clone());
        Trust { roots, cross_signed: cross_signed.into_iter().chain(former).collect() }
    }
}
