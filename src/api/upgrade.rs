//! A connection that stops being HTTP and becomes the streams of a command.

use super::{
    local::ExecInput,
    route::empty,
    stall::Stall,
    stream::{Body, ExecBytes, ExecPieces},
};
use crate::util::deadline::within;
use bytes::Bytes;
use futures_lite::{FutureExt as _, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use smol::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::UnixStream,
};
use smol_hyper::rt::FuturesIo;
use std::{io, time::Duration};

/// What is read of a client at once.
const READ_MAX: usize = 32 << 10;

/// How long a client may leave a command's output unread: as with a log, it may be a pager.
const WRITE_WAIT: Duration = Duration::from_secs(3_600);

/// How often a client that has ended its input is looked at: whether it is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a client may take to see that the connection changes.
const UPGRADE_WAIT: Duration = Duration::from_secs(10);

/// Answers that the connection is the command's from here on, and serves it as that.
pub(crate) fn hijack(upgrade: OnUpgrade, exec: ExecBytes) -> Response<Body> {
    let kind = exec.kind();
    smol::spawn(async move {
        if let Err(error) = serve(upgrade, exec).await {
            tracing::debug!(%error, "a command's client is gone");
        }
    })
    .detach();
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    response
}

async fn serve(upgrade: OnUpgrade, exec: ExecBytes) -> io::Result<()> {
    let upgraded = within(UPGRADE_WAIT, upgrade).await;
    let upgraded = upgraded.ok_or(io::ErrorKind::TimedOut)?.map_err(io::Error::other)?;
    let parts = upgraded
        .downcast::<FuturesIo<Stall<UnixStream>>>()
        .map_err(|_| io::Error::other("the connection is none of the server's"))?;
    let stream = parts.io.into_inner().into_inner();
    let ExecPieces { input, mut output } = exec.into_pieces();
    let up = feed(stream.clone(), parts.read_buf, input);
    let down = async {
        let mut writer = Stall::new(stream.clone(), WRITE_WAIT);
        while let Some(bytes) = output.next().await {
            writer.write_all(&bytes).await?;
        }
        writer.flush().await
    };
    let ended = down.or(up).await;
    // Refused where the client closed it before.
    stream.shutdown(std::net::Shutdown::Both).ok();
    ended
}

/// Hands on what the client sends; returns once the client is gone.
async fn feed(
    mut stream: UnixStream,
    early: Bytes,
    input: Option<async_channel::Sender<ExecInput>>,
) -> io::Result<()> {
    let hand_on = async |what: ExecInput| {
        if let Some(input) = &input {
            // Where nobody takes it, the command has ended, and the other direction tells.
            drop(input.send(what).await);
        }
    };
    if !early.is_empty() {
        hand_on(ExecInput::Data(early)).await;
    }
    let mut buffer = vec![0; READ_MAX];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        hand_on(ExecInput::Data(Bytes::copy_from_slice(&buffer[..n]))).await;
    }
    hand_on(ExecInput::End).await;
    while !is_gone(&stream) {
        async_io::Timer::after(LOOK_EVERY).await;
    }
    Ok(())
}

/// Tells whether the client has closed both directions; with one closed it still listens.
fn is_gone(stream: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut descriptors = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut descriptors, Some(&now)) {
        Ok(_) => descriptors[0].revents().intersects(PollFlags::HUP | PollFlags::ERR),
        Err(_) => false,
    }
}
