//! What members of the group say to one another.

use super::*;
use crate::{consensus::OnSmol, util::fuzz};

#[test]
fn messages_of_members() {
    let vote = Vote::<OnSmol>::new(1, 1);
    let part = |offset, bytes: &[u8]| Part {
        vote,
        meta: SnapshotMeta::<OnSmol>::default(),
        offset,
        len: 3,
        bytes: bytes.to_vec(),
    };
    let seeds = [
        Call::<OnSmol>::Vote(VoteRequest::new(vote, None)),
        Call::Append(AppendEntriesRequest {
            vote,
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: None,
        }),
        Call::SnapshotPart(part(0, b"abc")),
        Call::SnapshotPart(part(0, b"ab")),
    ];
    let seeds = seeds.map(|call| encode(&call).unwrap());
    fuzz::check("messages_of_members", &seeds, |bytes| {
        let call: Call<OnSmol> = decode_up_to(bytes, MESSAGE_MAX).ok()?;
        let again = encode(&call).unwrap();
        let same: Call<OnSmol> = decode_up_to(&again, MESSAGE_MAX).unwrap();
        assert_eq!(encode(&same).unwrap(), again);
        if let Call::SnapshotPart(part) = call {
            let _refused = Parts::default().add(part);
        }
        Some(())
    });
}
