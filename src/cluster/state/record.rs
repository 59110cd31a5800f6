//! The bytes of every change in the log and of every row of a snapshot, compared with what was
//! recorded of them.
//!
//! Where this fails, `wire` says what may be appended: the log is read by managers of the version
//! before as well, which must apply every change alike or not at all. Anything else is another format,
//! with a reader for this one.

use super::{State, decode_entry, decode_snapshot, encode_entry};
use crate::{
    cluster::{Change, Command},
    types::{Date, RequestId},
    util::sample::{Sampler, check_recorded, show},
};

#[test]
fn every_change_has_the_bytes_that_were_recorded() {
    let sample = |(label, change): (String, Change)| {
        let request = Some(RequestId::from_bits(5));
        let command = Command { request, term: 3, date: Date::from_unix_seconds(1_000), change };
        let bytes = encode_entry(std::slice::from_ref(&command));
        assert_eq!(decode_entry(&bytes), Ok(vec![command]), "{label}");
        (label, show(&bytes))
    };
    let mut sampler = Sampler::default();
    let samples: Vec<_> = sampler.samples::<Change>("Change").into_iter().map(sample).collect();
    check_recorded("tests/data/format-2/entries.txt", &[samples, sampler.shapes()].concat());
}

#[test]
fn every_row_has_the_bytes_that_were_recorded() {
    let sample = |(label, state): (String, State)| {
        let bytes = state.encode_snapshot();
        assert_eq!(decode_snapshot(&bytes).as_ref(), Ok(&state), "{label}");
        (label, show(&bytes))
    };
    let mut sampler = Sampler::default();
    let samples: Vec<_> = sampler.samples::<State>("State").into_iter().map(sample).collect();
    check_recorded("tests/data/format-2/snapshots.txt", &[samples, sampler.shapes()].concat());
}
