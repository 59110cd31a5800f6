//! quinn's clock, tasks and socket on smol.
//!
//! quinn brings this itself, and asks the reactor before every packet whether the socket takes one: a
//! wait, and mostly another thread, in each step of each request. Here a packet is sent at once, and
//! only a socket that was full is waited for. And a timer that is put off, as with every packet, is
//! left as it is until it goes off.

use async_io::{Async, Timer};
use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

/// smol, as quinn runs on it.
#[derive(Debug)]
pub(super) struct OnSmol;

impl Runtime for OnSmol {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(LazyTimer { timer: Timer::at(deadline), armed: Some(deadline), deadline })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        smol::spawn(future).detach();
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new((&socket).into())?;
        let io = Async::new_nonblocking(socket)?;
        Ok(Arc::new(Socket { io, state, times_full: AtomicU64::new(0) }))
    }
}

/// A timer that goes off no later than it should, and then looks whether it was put off meanwhile.
#[derive(Debug)]
struct LazyTimer {
    timer: Timer,
    /// When it goes off; none once it has.
    armed: Option<Instant>,
    /// When it should.
    deadline: Instant,
}

impl LazyTimer {
    fn arm(&mut self) {
        self.timer.set_at(self.deadline);
        self.armed = Some(self.deadline);
    }
}

impl AsyncTimer for LazyTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.deadline = deadline;
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.arm();
        }
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        while self.armed.is_some() {
            ready!(Pin::new(&mut self.timer).poll(context));
            self.armed = None;
            if Instant::now() < self.deadline {
                self.arm();
            }
        }
        Poll::Ready(())
    }
}

#[derive(Debug)]
struct Socket {
    io: Async<UdpSocket>,
    state: UdpSocketState,
    /// How often it took no packet.
    times_full: AtomicU64,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let waited_for = self.times_full.load(Ordering::Relaxed);
        Box::pin(Room { socket: self, waited_for, wait: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.state.send((&self.io).into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.times_full.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_readable(context))?;
            // An error is about one packet, as where nobody takes those of a node that is gone; to
            // quinn it would be the end of the endpoint.
            if let Ok(received) = self.state.recv((&self.io).into(), buffers, meta) {
                return Poll::Ready(Ok(received));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.as_ref().local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

type Wait = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits for room in the socket, where there was none.
struct Room {
    socket: Arc<Socket>,
    /// What the socket's count was when it was last waited for.
    waited_for: u64,
    wait: Option<Wait>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("waited_for", &self.waited_for).finish_non_exhaustive()
    }
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let times_full = self.socket.times_full.load(Ordering::Relaxed);
        if self.wait.is_none() && times_full == self.waited_for {
            return Poll::Ready(Ok(()));
        }
        let socket = Arc::clone(&self.socket);
        let wait =
            self.wait.get_or_insert_with(|| Box::pin(async move { socket.io.writable().await }));
        let room = ready!(wait.as_mut().poll(context));
        self.wait = None;
        self.waited_for = times_full;
        Poll::Ready(room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::poll_fn;
    use std::time::Duration;

    fn timer(after: Duration) -> Pin<Box<dyn AsyncTimer>> {
        OnSmol.new_timer(Instant::now() + after)
    }

    async fn gone_off(timer: &mut Pin<Box<dyn AsyncTimer>>) -> Instant {
        poll_fn(|context| timer.as_mut().poll(context)).await;
        Instant::now()
    }

    #[test]
    fn a_timer_that_is_put_off_waits_for_the_later_date() {
        let (step, mut timer) = (Duration::from_millis(20), timer(Duration::ZERO));
        smol::block_on(async {
            let later = Instant::now() + step;
            timer.as_mut().reset(later);
            assert!(gone_off(&mut timer).await >= later);
            assert!(gone_off(&mut timer).await >= later, "it stays so until it is set anew");
            let last = Instant::now() + step;
            timer.as_mut().reset(last);
            assert!(gone_off(&mut timer).await >= last);
        });
    }

    #[test]
    fn a_timer_that_is_set_to_sooner_does_not_wait_for_the_old_date() {
        let mut timer = timer(Duration::from_secs(3_600));
        smol::block_on(async {
            let pending = futures_lite::future::poll_once(poll_fn(|c| timer.as_mut().poll(c)));
            assert_eq!(pending.await, None);
            timer.as_mut().reset(Instant::now());
            gone_off(&mut timer).await;
        });
    }

    #[test]
    fn only_a_socket_that_was_full_is_waited_for() {
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let state = |socket: &UdpSocket| UdpSocketState::new(socket.into()).unwrap();
        let socket = socket();
        let state = state(&socket);
        let io = Async::new_nonblocking(socket).unwrap();
        let socket = Arc::new(Socket { io, state, times_full: AtomicU64::new(0) });
        let mut room = Arc::clone(&socket).create_io_poller();
        let look = |room: &mut Pin<Box<dyn UdpPoller>>| {
            let mut context = Context::from_waker(std::task::Waker::noop());
            room.as_mut().poll_writable(&mut context).is_ready()
        };
        assert!(look(&mut room) && look(&mut room));
        socket.times_full.fetch_add(1, Ordering::Relaxed);
        assert!(!look(&mut room), "the reactor has to say so");
        smol::block_on(poll_fn(|context| room.as_mut().poll_writable(context))).unwrap();
        assert!(look(&mut room), "there was room since");
    }
}
