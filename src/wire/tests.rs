use super::*;
use crate::types::{Date, Sequence, TaskId, TaskReport, TaskState, TaskStatus};
use proptest::prelude::*;

fn read_back<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
    let frame = encode(message).unwrap();
    let header: [u8; HEADER_LEN] = frame[..HEADER_LEN].try_into().unwrap();
    assert_eq!(payload_len(header, M::LEN_MAX), Ok(frame.len() - HEADER_LEN));
    assert_eq!(decode::<M>(&frame[HEADER_LEN..]).as_ref(), Ok(message));
}

#[test]
fn damaged_frames_say_why() {
    assert_eq!(decode::<FromWorker>(&[]), Err(DecodeError::Empty));
    assert_eq!(decode::<FromWorker>(&[2, 0]), Err(DecodeError::UnknownVersion(2)));
    let unknown = FromWorker::VARIANTS;
    let newer = [1, u8::try_from(unknown).unwrap(), 7];
    assert_eq!(decode::<FromWorker>(&newer), Err(DecodeError::UnknownVariant(unknown)));
    // A report whose only task is in a state that nobody knows.
    let strange = [1, 2, 1, 1, 1, 1, b'x', 99];
    assert!(matches!(decode::<FromWorker>(&strange), Err(DecodeError::Malformed(_))));
    assert!(matches!(decode::<FromWorker>(&[1]), Err(DecodeError::Malformed(_))));
    assert_eq!(decode::<FromManager>(&[1, 5, 0, 0]), Err(DecodeError::Trailing(2)));
    let max = STRANGER_LEN_MAX;
    assert_eq!(payload_len([0, 1, 0, 1], max), Err(DecodeError::TooLong { len: 65_537, max }));
    let long = StreamRequest::Renew { csr: vec![0; StreamRequest::LEN_MAX] };
    assert!(matches!(encode(&long), Err(EncodeError::TooLong { .. })));
}

fn sequence() -> impl Strategy<Value = Sequence> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(epoch, term, number)| Sequence {
        epoch,
        term,
        number,
    })
}

fn report() -> impl Strategy<Value = TaskReport> {
    (any::<u128>(), ".{0,40}", any::<Option<i32>>(), any::<u64>()).prop_map(
        |(id, message, exit_code, date)| TaskReport {
            task: TaskId::from_bits(id),
            status: TaskStatus {
                state: TaskState::Running,
                date: Date::from_unix_nanos(date),
                message,
                exit_code,
                ..TaskStatus::default()
            },
        },
    )
}

proptest! {
    #[test]
    fn every_message_reads_back(
        session: u64,
        number: u64,
        applied in sequence(),
        tasks in prop::collection::vec(report(), 0..20),
        csr: Vec<u8>,
    ) {
        read_back(&FromWorker::Heartbeat { session, applied });
        read_back(&FromWorker::Report { session, number, tasks });
        read_back(&FromManager::ReportTaken { session, number });
        read_back(&StreamRequest::Renew { csr: csr.clone() });
        read_back(&StreamReply::Certificate(csr));
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), known: bool) {
        if known && !bytes.is_empty() {
            bytes[0] = VERSION;
        }
        let _outcome = decode::<FromWorker>(&bytes);
        let _outcome = decode::<FromManager>(&bytes);
        let _outcome = decode::<StreamRequest>(&bytes);
        let _outcome = decode::<StreamReply>(&bytes);
    }

    #[test]
    fn a_cut_message_is_no_message(session: u64, applied in sequence(), cut in 1usize..40) {
        let frame = encode(&FromWorker::Heartbeat { session, applied }).unwrap();
        let payload = &frame[HEADER_LEN..];
        let kept = payload.len().saturating_sub(cut);
        prop_assert!(decode::<FromWorker>(&payload[..kept]).is_err());
    }
}
