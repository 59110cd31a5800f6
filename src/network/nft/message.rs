//! Netlink messages of the packet filter, and the socket they travel on.
//!
//! The layout is the kernel's `linux/netfilter/nf_tables.h`: attributes of length, type and
//! value, padded to four bytes; numbers in network order.

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
    netlink::{NETFILTER, SocketAddrNetlink},
    recv, send, socket_with, sockopt,
};
use std::{io, os::fd::OwnedFd, time::Duration};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_DONE: u16 = 3;
/// The subsystem number of nf_tables, in messages' upper byte and in the batch's header.
pub(super) const NF_TABLES: u16 = 10;
const NESTED: u16 = 0x8000;

/// How long the kernel may take for a transaction. It waits for one grace period, milliseconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// The send buffer asked for; the kernel cuts it to `net.core.wmem_max`, by default 208 KiB,
/// which holds the rules of `PORTS_MAX` ports.
const SEND_BUFFER: usize = 1 << 20;

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NewTable,
    DeleteTable,
    NewChain,
    NewRule,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::NewTable => 0,
            Self::DeleteTable => 2,
            Self::NewChain => 3,
            Self::NewRule => 6,
        }
    }

    fn flags(self) -> u16 {
        match self {
            Self::NewTable | Self::NewChain => NLM_F_CREATE,
            Self::DeleteTable => 0,
            Self::NewRule => NLM_F_CREATE | NLM_F_APPEND,
        }
    }
}

/// A transaction: all of it happens or nothing.
#[derive(Debug)]
pub(super) struct Batch {
    /// The kernel's number of the address family that the table is of.
    family: u8,
    messages: Vec<(Kind, Vec<u8>, String)>,
}

/// The kernel refused a transaction.
#[derive(Debug)]
pub(super) struct Refused {
    /// Which of its messages, as it was described.
    pub(super) what: String,
    /// Why.
    pub(super) source: io::Error,
}

/// Attributes, growing.
#[derive(Debug, Default, Clone)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds raw bytes.
    pub(super) fn bytes(mut self, number: u16, value: &[u8]) -> Self {
        let len = u16::try_from(value.len() + 4).expect("attributes are far below 64 KiB");
        self.0.extend(len.to_ne_bytes());
        self.0.extend(number.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a text, with its final zero.
    pub(super) fn text(self, number: u16, value: &str) -> Self {
        self.bytes(number, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds a number.
    pub(super) fn number(self, number: u16, value: u32) -> Self {
        self.bytes(number, &value.to_be_bytes())
    }

    /// Returns the bytes.
    #[cfg(test)]
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Adds attributes within one.
    pub(super) fn nested(self, number: u16, inner: &Self) -> Self {
        self.bytes(number | NESTED, &inner.0)
    }
}

impl Batch {
    /// Begins an empty one.
    pub(super) fn new(family: u8) -> Self {
        Self { family, messages: Vec::new() }
    }

    /// Adds a message; `what` describes it in errors.
    pub(super) fn push(&mut self, kind: Kind, body: Attributes, what: impl Into<String>) {
        self.messages.push((kind, body.0, what.into()));
    }

    /// Returns the bytes. Only the last message asks for an answer: errors come unasked, and an
    /// answer for each would overflow the socket's receive buffer. The markers around the batch
    /// have sequence number 0, messages are counted from 1.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        write_message(&mut out, BATCH_BEGIN, NLM_F_REQUEST, 0, 0, NF_TABLES, &[]);
        for (sequence, (kind, body, _)) in (1_u32..).zip(&self.messages) {
            let is_last = usize::try_from(sequence).is_ok_and(|n| n == self.messages.len());
            let flags = NLM_F_REQUEST | kind.flags() | if is_last { NLM_F_ACK } else { 0 };
            let number = (NF_TABLES << 8) | kind.number();
            write_message(&mut out, number, flags, sequence, self.family, 0, body);
        }
        write_message(&mut out, BATCH_END, NLM_F_REQUEST, 0, 0, NF_TABLES, &[]);
        out
    }

    /// Sends the transaction and waits until the kernel has carried it out. Blocks.
    pub(super) fn commit(&self) -> Result<(), Refused> {
        let socket = open()?;
        sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)
            .map_err(refused("size its buffer"))?;
        let bytes = self.encode();
        let sent = send(&socket, &bytes, SendFlags::empty()).map_err(refused("send to it"))?;
        assert!(sent == bytes.len(), "netlink takes a message whole");

        // An answer repeats the message it is about, which is far below this size.
        let mut buffer = vec![0; 1 << 16];
        let mut first_error = None;
        loop {
            let (len, _) = recv(&socket, &mut buffer, RecvFlags::empty())
                .map_err(refused("wait for its answer"))?;
            for (sequence, errno) in answers(&buffer[..len]) {
                if errno != 0 && first_error.is_none() {
                    first_error = Some(self.refusal(sequence, errno));
                }
                let is_last = usize::try_from(sequence).is_ok_and(|n| n == self.messages.len());
                if is_last || (sequence == 0 && errno != 0) {
                    return first_error.map_or(Ok(()), Err);
                }
            }
        }
    }

    fn refusal(&self, sequence: u32, errno: i32) -> Refused {
        let index = usize::try_from(sequence).unwrap_or(0).checked_sub(1);
        let message = index.and_then(|index| self.messages.get(index));
        Refused {
            what: message.map_or_else(|| "the whole of it".into(), |message| message.2.clone()),
            source: io::Error::from_raw_os_error(errno),
        }
    }
}

fn refused(what: &str) -> impl FnOnce(rustix::io::Errno) -> Refused + use<> {
    let what = what.to_owned();
    move |error| Refused { what, source: error.into() }
}

/// Opens a socket to the packet filter, on which nothing is waited for without end.
fn open() -> Result<OwnedFd, Refused> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(NETFILTER))
        .map_err(refused("open a socket to it"))?;
    bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(refused("bind its socket"))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_TIME_MAX))
        .map_err(refused("set its deadline"))?;
    Ok(socket)
}

/// A question for everything of one kind that the kernel holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    /// The number of the message that asks.
    pub(super) ask: u16,
    /// The number of those that answer.
    pub(super) answer: u16,
    /// The kernel's number of the address family; 0 is every one.
    pub(super) family: u8,
    /// How many bytes of answers are read at most.
    pub(super) bytes_max: usize,
}

/// Hands out the family and the attributes of everything that is asked for. Blocks.
pub(super) fn dump(question: &Question, mut each: impl FnMut(u8, &[u8])) -> io::Result<()> {
    let socket = open().map_err(|refused| refused.source)?;
    let mut request = Vec::new();
    let flags = NLM_F_REQUEST | NLM_F_DUMP;
    write_message(&mut request, question.ask, flags, 1, question.family, 0, &[]);
    send(&socket, &request, SendFlags::empty())?;
    let mut buffer = vec![0; 1 << 16];
    let mut read = 0;
    while read < question.bytes_max {
        let (len, _) = recv(&socket, &mut buffer, RecvFlags::empty())?;
        read += len.max(1);
        for Message { number, body, .. } in messages(&buffer[..len]) {
            match number {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    return Err(io::Error::from_raw_os_error(errno(body).unwrap_or(0)));
                }
                number if number == question.answer => {
                    if let Some((header, body)) = body.split_first_chunk::<4>() {
                        each(header[0], body);
                    }
                }
                _ => {}
            }
        }
    }
    Err(io::Error::other("there are too many to read"))
}

/// A socket on which one thing after another is asked for.
#[derive(Debug)]
pub(super) struct Talk {
    socket: OwnedFd,
    sequence: u32,
}

impl Talk {
    /// Opens it.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { socket: open().map_err(|refused| refused.source)?, sequence: 0 })
    }

    /// Sends a message and waits until the kernel has done what it says. Blocks.
    pub(super) fn ask(&mut self, number: u16, family: u8, body: &Attributes) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::new();
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        write_message(&mut request, number, flags, self.sequence, family, 0, &body.0);
        send(&self.socket, &request, SendFlags::empty())?;
        let mut buffer = vec![0; 1 << 12];
        loop {
            let (len, _) = recv(&self.socket, &mut buffer, RecvFlags::empty())?;
            match answers(&buffer[..len]).into_iter().find(|(of, _)| *of == self.sequence) {
                Some((_, 0)) => return Ok(()),
                Some((_, errno)) => return Err(io::Error::from_raw_os_error(errno)),
                None => {}
            }
        }
    }
}

/// A message of the kernel's.
struct Message<'a> {
    number: u16,
    sequence: u32,
    body: &'a [u8],
}

/// Splits what the kernel sent into messages; the last may be cut off.
fn messages(mut bytes: &[u8]) -> Vec<Message<'_>> {
    let mut messages = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<16>() {
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let len = usize::try_from(len).unwrap_or(usize::MAX).max(16);
        messages.push(Message {
            number: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body: &rest[..(len - 16).min(rest.len())],
        });
        let step = len.checked_next_multiple_of(4).unwrap_or(usize::MAX);
        bytes = bytes.get(step..).unwrap_or_default();
    }
    messages
}

/// Returns the error number that the body of an error message says; 0 is none.
fn errno(body: &[u8]) -> Option<i32> {
    body.first_chunk().map(|code| i32::from_ne_bytes(*code).saturating_neg())
}

/// Splits attributes: the kind and the value of each.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut attributes = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The upper two bits say how the value is written.
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let Some(value) = bytes.get(4..len) else { break };
        attributes.push((kind, value));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    attributes
}

/// Appends a message: netlink's header, netfilter's, attributes.
fn write_message(
    out: &mut Vec<u8>,
    number: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    body: &[u8],
) {
    let len = u32::try_from(16 + 4 + body.len()).expect("messages are far below 4 GiB");
    out.extend(len.to_ne_bytes());
    out.extend(number.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend(0_u32.to_ne_bytes());
    out.extend([family, 0]);
    out.extend(resource.to_be_bytes());
    out.extend(body);
}

/// Returns sequence number and error (0 for none) of every answer in `bytes`.
fn answers(bytes: &[u8]) -> Vec<(u32, i32)> {
    let errors = messages(bytes).into_iter().filter(|message| message.number == NLMSG_ERROR);
    errors.filter_map(|message| Some((message.sequence, errno(message.body)?))).collect()
}
