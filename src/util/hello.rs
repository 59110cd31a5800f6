//! A tiny HTTP responder, so that the demonstration needs no image from anywhere: the binary is
//! its own.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// How long a client may take over its request or the answer.
const CLIENT_LIMIT: Duration = Duration::from_secs(5);

/// The longest request that is read: browsers send about one.
const REQUEST_MAX: u64 = 16 << 10;

/// Answers every HTTP request on `port` with `text` and this host's name, for ever.
///
/// # Errors
///
/// The port cannot be listened on.
pub fn serve(port: u16, text: &str) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let body = format!("{text} from {host}\n");
    // As the first process of a container it would otherwise ignore being asked to stop.
    thread::spawn(wait_for_end);
    loop {
        let (stream, _) = listener.accept()?;
        let body = body.clone();
        // A client that breaks off is its own affair.
        thread::spawn(move || answer(stream, &body).ok());
    }
}

/// Ends the process when it is asked to.
#[expect(clippy::exit, reason = "there is nothing to clean up, and accept cannot be interrupted")]
fn wait_for_end() {
    use async_signal::{Signal, Signals};
    use futures_lite::StreamExt as _;
    if let Ok(mut signals) = Signals::new([Signal::Term, Signal::Int]) {
        futures_lite::future::block_on(signals.next());
        std::process::exit(0);
    }
}

fn answer(stream: TcpStream, body: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_LIMIT))?;
    stream.set_write_timeout(Some(CLIENT_LIMIT))?;
    let mut reader = BufReader::new((&stream).take(REQUEST_MAX));
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    write!(
        &stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}
