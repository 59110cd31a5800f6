//! Archives that users load.

use super::archive::{Part, read};
use crate::util::fuzz;
use std::io::Write as _;

/// An archive as `docker save` writes one, as far as its form goes.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in [("blobs/sha256/aa", "layer"), ("index.json", "{}")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    builder.append_link(&mut header, "a/layer.tar", "../blobs/sha256/aa").unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn archives() {
    let plain = archive();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&plain).unwrap();
    fuzz::check("archives", &[plain, packed.finish().unwrap()], |bytes| {
        let (sender, parts) = async_channel::unbounded();
        let outcome = read(bytes, 4_096, &sender);
        drop(sender);
        while let Ok(part) = parts.try_recv() {
            if let Part::File { path, .. } | Part::Link { path, .. } = part {
                let inside = |name: &str| !matches!(name, "" | "." | "..");
                assert!(path.split('/').all(inside), "{path:?} leaves the archive");
            }
        }
        outcome.ok()
    });
}
