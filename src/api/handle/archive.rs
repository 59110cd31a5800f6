//! Files of running containers, as archives.

use super::{
    super::{
        convert::date,
        error::invalid,
        route::{Call, Reply, empty, streaming},
        stream::{fallible, upload},
    },
    target,
};
use crate::{
    cluster::{Class, Refusal},
    types::{PathStat, UnpackOptions},
};
use base64::Engine as _;
use http::{HeaderValue, StatusCode};
use serde_json::json as value;

/// The header that says what the path is.
const STAT: &str = "x-docker-container-path-stat";

pub(crate) async fn stat(call: Call) -> Reply {
    let path = path(&call)?;
    let found = target::find(call.node.as_ref(), call.name()).await?;
    found.must_run()?;
    let stat = call.node.path_stat(found.place, path).await?;
    let mut response = empty(StatusCode::OK);
    response.headers_mut().insert(STAT, header(&stat)?);
    Ok(response)
}

pub(crate) async fn get(call: Call) -> Reply {
    let path = path(&call)?;
    let found = target::find(call.node.as_ref(), call.name()).await?;
    found.must_run()?;
    let (stat, archive) = call.node.pack(found.place, path).await?;
    let mut response = streaming("application/x-tar", fallible(archive));
    response.headers_mut().insert(STAT, header(&stat)?);
    Ok(response)
}

pub(crate) async fn put(call: Call) -> Reply {
    let path = path(&call)?;
    let found = target::find(call.node.as_ref(), call.name()).await?;
    found.must_run()?;
    let options = UnpackOptions {
        keep_kinds: call.query.flag("noOverwriteDirNonDir"),
        own_to_user: call.query.flag("copyUIDGID"),
    };
    call.node.unpack(found.place, path, options, upload(call.body)).await?;
    Ok(empty(StatusCode::OK))
}

fn path(call: &Call) -> Result<String, Refusal> {
    call.query.get("path").map(str::to_owned).ok_or_else(|| invalid("missing parameter: path"))
}

fn header(stat: &PathStat) -> Result<HeaderValue, Refusal> {
    let shown = value!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": date(stat.modified),
        "linkTarget": stat.link_target,
    });
    let text = base64::engine::general_purpose::STANDARD.encode(shown.to_string());
    HeaderValue::from_str(&text)
        .map_err(|error| Refusal::new(Class::Internal, format!("cannot show the path: {error}")))
}

/// Turns the kernel's mode into Go's, which Docker's clients read.
fn go_mode(mode: u32) -> u32 {
    const KIND: u32 = 0o170_000;
    let kind = match mode & KIND {
        0o040_000 => 1 << 31,               // a folder
        0o120_000 => 1 << 27,               // a symbolic link
        0o060_000 => 1 << 26,               // a block device
        0o020_000 => (1 << 26) | (1 << 21), // a character device
        0o010_000 => 1 << 25,               // a fifo
        0o140_000 => 1 << 24,               // a socket
        _ => 0,
    };
    let special = [(0o4_000, 1 << 23), (0o2_000, 1 << 22), (0o1_000, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go);
    kind | special.sum::<u32>() | (mode & 0o777)
}

#[cfg(test)]
mod tests {
    use super::go_mode;

    #[test]
    fn modes_are_gos() {
        for (mode, go) in [
            (0o100_644, 0o644),
            (0o040_755, 0x8000_01ed),
            (0o120_777, 0x0800_01ff),
            (0o041_777, 0x8010_01ff),
            (0o104_755, 0x0080_01ed),
            (0o020_620, 0x0420_0190),
        ] {
            assert_eq!(go_mode(mode), go, "{mode:o}");
        }
    }
}
