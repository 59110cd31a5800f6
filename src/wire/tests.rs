use super::*;
use crate::{
    cluster::{Class, Refusal},
    types::{Date, Sequence, TaskId, TaskReport, TaskState, TaskStatus},
};
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_back<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> String {
    let frame = encode(message).unwrap();
    let header: [u8; HEADER_LEN] = frame[..HEADER_LEN].try_into().unwrap();
    assert_eq!(payload_len(header, M::LEN_MAX), Ok(frame.len() - HEADER_LEN));
    assert_eq!(decode::<M>(&frame[HEADER_LEN..]).as_ref(), Ok(message));
    hex(&frame)
}

#[test]
fn the_bytes_of_version_1_stay_what_they_are() {
    let sequence = Sequence { epoch: 1, term: 2, number: 300 };
    let golden = [
        (
            read_back(&FromWorker::Heartbeat { session: 5, applied: sequence }),
            "000000070101050102ac02",
        ),
        (read_back(&FromWorker::Leave { session: 128 }), "0000000401048001"),
        (
            read_back(&FromWorker::Unwell { session: 1, message: "x".to_owned() }),
            "000000050105010178",
        ),
        (read_back(&FromManager::NoSession { session: 1 }), "00000003010401"),
        (read_back(&FromManager::Removed), "000000020105"),
        (read_back(&StreamRequest::Root), "000000020100"),
        (read_back(&StreamRequest::Session), "000000020102"),
        (read_back(&StreamRequest::Renew { csr: vec![1, 2] }), "000000050105020102"),
        (read_back(&StreamRequest::LoadImage { size: 300 }), "000000040107ac02"),
        (
            read_back(&StreamRequest::Logs(Box::new(LogsRequest {
                tail: Some(10),
                stdout: true,
                ..LogsRequest::default()
            }))),
            "0000000c01060000010a000001000000",
        ),
        (read_back(&StreamReply::Ready), "000000020100"),
        (
            read_back(&StreamReply::Refused(Refusal::new(Class::NotFound, "no"))),
            "00000006010100026e6f",
        ),
    ];
    for (bytes, expected) in golden {
        assert_eq!(bytes, expected);
    }
}

#[test]
fn damaged_frames_say_why() {
    assert_eq!(decode::<FromWorker>(&[]), Err(DecodeError::Empty));
    assert_eq!(decode::<FromWorker>(&[2, 0]), Err(DecodeError::UnknownVersion(2)));
    assert!(matches!(decode::<FromWorker>(&[1, 99]), Err(DecodeError::Malformed(_))));
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
        let _bytes = read_back(&FromWorker::Heartbeat { session, applied });
        let _bytes = read_back(&FromWorker::Report { session, number, tasks });
        let _bytes = read_back(&FromManager::ReportTaken { session, number });
        let _bytes = read_back(&StreamRequest::Renew { csr: csr.clone() });
        let _bytes = read_back(&StreamReply::Certificate(csr));
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
