//! The bytes of every message, compared with what was recorded of them.

use super::*;
use crate::util::sample::{Sampler, check_recorded, show};

const RECORD: &str = "tests/data/wire/version-1.txt";

/// The files that say which messages there are.
const SOURCES: [&str; 4] = [
    include_str!("container.rs"),
    include_str!("content.rs"),
    include_str!("mod.rs"),
    include_str!("stream.rs"),
];

struct Samples {
    sampler: Sampler,
    names: Vec<&'static str>,
    bytes: Vec<(String, String)>,
}

impl Samples {
    fn take<M: Message + PartialEq + std::fmt::Debug>(&mut self, name: &'static str) {
        self.names.push(name);
        let before = self.bytes.len();
        for (label, message) in self.sampler.samples::<M>(name) {
            let frame = encode(&message).unwrap();
            assert_eq!(decode(&frame[HEADER_LEN..]).as_ref(), Ok(&message), "{label}");
            self.bytes.push((label, show(&frame)));
        }
        let whole = |(label, _): &&(String, _)| label.contains("::") && !label.contains(' ');
        let variants = u32::try_from(self.bytes[before..].iter().filter(whole).count()).unwrap();
        assert!([0, variants].contains(&M::VARIANTS), "{name} has {variants} variants");
    }
}

/// What was recorded is what is written; what is written is read.
#[test]
fn every_message_has_the_bytes_that_were_recorded() {
    let (sampler, names, bytes) = (Sampler::default(), Vec::new(), Vec::new());
    let mut samples = Samples { sampler, names, bytes };
    samples.take::<FromWorker>("FromWorker");
    samples.take::<FromManager>("FromManager");
    samples.take::<StreamRequest>("StreamRequest");
    samples.take::<StreamReply>("StreamReply");
    samples.take::<RaftCall>("RaftCall");
    samples.take::<RaftAnswer>("RaftAnswer");
    samples.take::<ContainerInput>("ContainerInput");
    samples.take::<ContainerFrame>("ContainerFrame");
    samples.take::<LogFrame>("LogFrame");
    samples.take::<ArchiveFrame>("ArchiveFrame");
    samples.take::<LoadFrame>("LoadFrame");
    samples.take::<ChoreFrame>("ChoreFrame");
    let messages = SOURCES.iter().flat_map(|source| source.split("\nimpl Message for ").skip(1));
    let mut messages: Vec<&str> =
        messages.map(|rest| rest.split(' ').next().unwrap_or_default()).collect();
    messages.sort_unstable();
    samples.names.sort_unstable();
    assert_eq!(samples.names, messages, "every message has samples");
    check_recorded(RECORD, &[samples.bytes, samples.sampler.shapes()].concat());
}
