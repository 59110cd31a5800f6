//! The whole cluster in one sealed file, and back. midge's own.
//!
//! The passphrase goes to the daemon, which alone ever has what is inside: the file is sealed before
//! it leaves, and opened where the cluster is made.

use super::super::{
    decode, dto,
    error::invalid,
    local::RestoreOptions,
    route::{Call, Reply, json},
    stream::{full, upload},
};
use futures_lite::StreamExt as _;
use http::{Response, header};

/// The largest upload: the largest backup there is, and the line before it.
const UPLOAD_MAX: usize = 132 << 20;

/// The longest first line of an upload.
const OPTIONS_MAX: usize = 64 << 10;

const NO_PASSPHRASE: &str = "a backup needs a passphrase";

pub(crate) async fn backup(mut call: Call) -> Reply {
    let body: dto::BackupRequest = call.json().await?;
    if body.passphrase.is_empty() {
        return Err(invalid(NO_PASSPHRASE));
    }
    let file = call.node.backup(body.passphrase).await?;
    let response = Response::builder().header(header::CONTENT_TYPE, "application/octet-stream");
    Ok(response.body(full(file)).expect("a header of our own"))
}

/// The body is one line of JSON, then the file.
pub(crate) async fn restore(call: Call) -> Reply {
    let mut pieces = upload(call.body);
    let mut file = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| invalid(format!("cannot read the backup: {error}")))?;
        if file.len() + piece.len() > UPLOAD_MAX {
            return Err(invalid(format!("the backup is larger than {UPLOAD_MAX} bytes")));
        }
        file.extend_from_slice(&piece);
    }
    let line = file.iter().take(OPTIONS_MAX).position(|byte| *byte == b'\n');
    let line = line.ok_or_else(|| invalid("one line of JSON is expected before the backup"))?;
    let body: dto::RestoreRequest = decode::from_slice(&file[..line])
        .map_err(|error| invalid(format!("invalid JSON: {error}")))?;
    if body.passphrase.is_empty() {
        return Err(invalid(NO_PASSPHRASE));
    }
    file.drain(..=line);
    let options = RestoreOptions {
        passphrase: body.passphrase,
        listen: body.listen_addr,
        advertise: body.advertise_addr,
    };
    json(&call.node.restore(options, file).await?.as_str())
}
