//! The bytes of what members say to each other and keep on disk, compared with what was recorded of
//! them.
//!
//! Most of these types are the engine's: where this fails after a new release of it was taken, members
//! of the version before misread this one, and the log on disk is misread as well.

use super::{
    super::{
        on_smol::OnSmol,
        storage::{decode_up_to, encode},
        types::{Entry, LogId, SnapshotMeta, Types, Vote},
    },
    AppendEntriesResponse, Call, MESSAGE_MAX, SnapshotResponse, TransferLeaderResponse,
    VoteResponse,
};
use crate::util::sample::{Sampler, check_recorded, show};
use serde::{Serialize, de::DeserializeOwned};

type Of = Types<OnSmol>;

fn samples<T: Serialize + DeserializeOwned>(name: &str) -> Vec<(String, String)> {
    let sample = |(label, value): (String, T)| {
        let bytes = encode(&value).unwrap();
        let read: T = decode_up_to(&bytes, MESSAGE_MAX).unwrap();
        assert_eq!(encode(&read).unwrap(), bytes, "{label}");
        (label, show(&bytes))
    };
    let mut sampler = Sampler::default();
    let samples: Vec<_> = sampler.samples(name).into_iter().map(sample).collect();
    let shapes = sampler.shapes().into_iter();
    let shapes = shapes.map(|(of, fields)| (format!("{name}: {of}"), fields));
    samples.into_iter().chain(shapes).collect()
}

#[test]
fn every_call_and_record_has_the_bytes_that_were_recorded() {
    let all = [
        samples::<Call<OnSmol>>("Call"),
        samples::<AppendEntriesResponse<Of>>("Answer to Append"),
        samples::<VoteResponse<Of>>("Answer to Vote"),
        samples::<Option<SnapshotResponse<Of>>>("Answer to SnapshotPart"),
        samples::<TransferLeaderResponse<Of>>("Answer to TransferLeader"),
        samples::<Entry<OnSmol>>("Entry on disk"),
        samples::<Vote<OnSmol>>("Vote on disk"),
        samples::<LogId<OnSmol>>("Mark on disk"),
        samples::<SnapshotMeta<OnSmol>>("Snapshot on disk"),
    ];
    check_recorded("tests/data/consensus/encoding-1.txt", &all.concat());
}
