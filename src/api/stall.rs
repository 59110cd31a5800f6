//! A connection whose writes have a deadline: a client that stops reading gives its place back.

use async_io::Timer;
use futures_lite::{
    FutureExt,
    io::{AsyncRead, AsyncWrite},
};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// Ends with an error where a write makes no progress for `wait`.
#[derive(Debug)]
pub(crate) struct Stall<S> {
    stream: S,
    wait: Duration,
    timer: Option<Timer>,
}

impl<S> Stall<S> {
    pub(crate) fn new(stream: S, wait: Duration) -> Self {
        Self { stream, wait, timer: None }
    }

    /// Returns the connection.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    /// Passes a result on, and turns a pending one into an error once the time is over.
    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.timer = None;
            return polled;
        }
        let wait = self.wait;
        match self.timer.get_or_insert_with(|| Timer::after(wait)).poll(context) {
            Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::{io::AsyncWriteExt, net::unix::UnixStream};

    #[test]
    fn a_client_that_stops_reading_is_let_go() {
        smol::block_on(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut ours = Stall::new(ours, Duration::from_millis(20));
            let megabytes = vec![0; 16 << 20];
            let error = ours.write_all(&megabytes).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            drop(theirs);
        });
    }
}
