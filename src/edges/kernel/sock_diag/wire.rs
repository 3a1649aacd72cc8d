//! The bytes of `sock_diag(7)`: requests as the kernel wants them, replies as it writes them (`include/uapi/linux/inet_diag.h`).
//!
//! It never reads past the end of a reply, whatever lengths the reply claims.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The states of a TCP socket (`include/net/tcp_states.h`). A bound UDP socket without a peer is in `CLOSE`.
pub(super) mod state {
    pub(in super::super) const ESTABLISHED: u8 = 1;
    pub(in super::super) const SYN_RECV: u8 = 3;
    pub(in super::super) const FIN_WAIT1: u8 = 4;
    pub(in super::super) const FIN_WAIT2: u8 = 5;
    pub(in super::super) const CLOSE: u8 = 7;
    pub(in super::super) const CLOSE_WAIT: u8 = 8;
    pub(in super::super) const LAST_ACK: u8 = 9;
    pub(in super::super) const LISTEN: u8 = 10;
    pub(in super::super) const CLOSING: u8 = 11;
    pub(in super::super) const NEW_SYN_RECV: u8 = 12;
    /// The states between the handshake and the grave.
    pub(in super::super) const OPEN: [u8; 6] = [ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING];
}

/// Asks for nothing beyond the fixed part of an answer.
pub(super) const NO_EXTENSION: u8 = 0;
/// Asks for `struct tcp_info`: extension N is bit N - 1.
pub(super) const TCP_INFO: u8 = 1 << (INET_DIAG_INFO - 1);

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_BC_NOP: u8 = 0;
const INET_DIAG_BC_S_GE: u8 = 2;
const INET_DIAG_BC_S_LE: u8 = 3;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_MIN_TYPE: u16 = 16;
pub(super) const NLM_F_REQUEST: u16 = 1;
const NLM_F_MULTI: u16 = 2;
const NLM_F_DUMP_INTR: u16 = 16;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLMSG_HEADER: usize = 16;
/// The upper two bits of an attribute's type are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// One question, all but its sequence number.
pub(super) struct Request {
    pub(super) flags: u16,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Asks for the one socket that is bound to `local` and connected to `peer`.
    pub(super) fn exact(local: SocketAddr, peer: SocketAddr) -> Self {
        let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let scope = match local {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(local) => local.scope_id(),
        };
        let mut body = question(family, libc::IPPROTO_TCP, NO_EXTENSION, u32::MAX);
        body.extend(local.port().to_be_bytes());
        body.extend(peer.port().to_be_bytes());
        body.extend(words(local.ip()));
        body.extend(words(peer.ip()));
        body.extend(scope.to_ne_bytes());
        // INET_DIAG_NOCOOKIE: any cookie will do.
        body.extend(u64::MAX.to_ne_bytes());
        Self { flags: NLM_F_REQUEST, body }
    }

    /// Asks for all sockets of `family` in `states` (a bit each), on local port `port` or on any.
    pub(super) fn dump(family: i32, protocol: i32, states: u32, extension: u8, port: Option<u16>) -> Self {
        const ID_LENGTH: usize = 48;
        let mut body = question(family, protocol, extension, states);
        body.extend([0; ID_LENGTH]);
        body.extend(port.map(local_port_is).unwrap_or_default());
        Self { flags: NLM_F_REQUEST | NLM_F_DUMP, body }
    }

    /// The whole datagram.
    pub(super) fn bytes(&self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(NLMSG_HEADER + self.body.len()).expect("a request is short");
        let mut bytes = Vec::with_capacity(NLMSG_HEADER + self.body.len());
        bytes.extend(length.to_ne_bytes());
        bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(&self.body);
        bytes
    }
}

/// The start of `struct inet_diag_req_v2`.
fn question(family: i32, protocol: i32, extension: u8, states: u32) -> Vec<u8> {
    let byte = |number: i32| u8::try_from(number).expect("families and protocols fit a byte");
    let mut question = vec![byte(family), byte(protocol), extension, 0];
    question.extend(states.to_ne_bytes());
    question
}

/// An address as four words, an IPv4 address in the first.
fn words(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut words = [0; 16];
            words[..4].copy_from_slice(&ip.octets());
            words
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// A filter that the kernel runs (`inet_diag_bc_run` in `net/ipv4/inet_diag.c`): at least `port`, at most `port`.
///
/// Older kernels lack the instruction for equality. Each comparison carries its operand in the instruction after it; a jump to one
/// past the end refuses the socket.
fn local_port_is(port: u16) -> Vec<u8> {
    const ATTRIBUTE_LENGTH: u16 = 4 + 16;
    let instruction = |code: u8, then: u8, otherwise: u16| {
        let [low, high] = otherwise.to_ne_bytes();
        [code, then, low, high]
    };
    let mut attribute = Vec::with_capacity(ATTRIBUTE_LENGTH.into());
    attribute.extend(ATTRIBUTE_LENGTH.to_ne_bytes());
    attribute.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
    attribute.extend(instruction(INET_DIAG_BC_S_GE, 8, 16 + 4));
    attribute.extend(instruction(INET_DIAG_BC_NOP, 0, port));
    attribute.extend(instruction(INET_DIAG_BC_S_LE, 8, 8 + 4));
    attribute.extend(instruction(INET_DIAG_BC_NOP, 0, port));
    attribute
}

/// The netlink messages of one datagram. After a malformed one there are no more.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = io::Result<Envelope<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let opened = Envelope::open(rest);
        rest = opened.as_ref().map_or(&[], |(_, rest)| *rest);
        Some(opened.map(|(envelope, _)| envelope))
    })
}

/// A netlink message: `struct nlmsghdr` and what it covers.
pub(super) struct Envelope<'a> {
    kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    payload: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn open(bytes: &'a [u8]) -> io::Result<(Self, &'a [u8])> {
        let mut header = Cursor(bytes);
        let length = usize::try_from(header.u32()?).map_err(|_| malformed())?;
        let (kind, flags, sequence) = (header.u16()?, header.u16()?, header.u32()?);
        let payload = bytes.get(NLMSG_HEADER..length).ok_or_else(malformed)?;
        let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Ok((Self { kind, flags, sequence, payload }, rest))
    }

    /// Whether more messages of the same answer follow.
    pub(super) fn is_one_of_many(&self) -> bool {
        self.flags & NLM_F_MULTI != 0
    }

    /// Whether the tables changed so that the list is not consistent.
    pub(super) fn was_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// What the message says.
    pub(super) fn content(&self) -> io::Result<Message<'a>> {
        match self.kind {
            // Both begin with a negative errno or 0 (nlmsgerr in netlink(7), netlink_dump_done in net/netlink/af_netlink.c).
            NLMSG_ERROR | NLMSG_DONE => match Cursor(self.payload).i32()? {
                0.. => Ok(Message::Done),
                errno => Ok(Message::Failed(errno.checked_neg().ok_or_else(malformed)?)),
            },
            SOCK_DIAG_BY_FAMILY => Ok(Message::Socket(self.payload)),
            ..NLMSG_MIN_TYPE => Ok(Message::Other),
            _ => Err(malformed()),
        }
    }
}

/// What one netlink message says.
pub(super) enum Message<'a> {
    Done,
    Failed(i32),
    /// In the form of the family that was asked about.
    Socket(&'a [u8]),
    Other,
}

/// One TCP or UDP socket: `struct inet_diag_msg` and the attributes that zdr asks for.
pub(super) struct Found<'a> {
    pub(super) state: u8,
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) cookie: u64,
    pub(super) receive_queue: u32,
    pub(super) uid: u32,
    pub(super) inode: u32,
    pub(super) only_v6: bool,
    pub(super) tcp_info: Option<&'a [u8]>,
}

impl<'a> Found<'a> {
    pub(super) fn read(payload: &'a [u8]) -> io::Result<Self> {
        let mut fields = Cursor(payload);
        let [family, state, _timer, _retransmissions] = fields.take()?;
        let (local_port, peer_port) = (fields.port()?, fields.port()?);
        let (local, peer) = (fields.take()?, fields.take()?);
        let interface = fields.u32()?;
        let cookie = fields.u64()?;
        let _expires = fields.u32()?;
        let receive_queue = fields.u32()?;
        let _send_queue = fields.u32()?;
        let (uid, inode) = (fields.u32()?, fields.u32()?);
        let mut found = Self {
            state,
            local: socket_address(family, local, local_port, interface)?,
            peer: socket_address(family, peer, peer_port, interface)?,
            cookie,
            receive_queue,
            uid,
            inode,
            only_v6: false,
            tcp_info: None,
        };
        while let Some((kind, value)) = fields.attribute()? {
            match kind {
                INET_DIAG_SKV6ONLY => found.only_v6 = value.first().is_some_and(|&only| only != 0),
                INET_DIAG_INFO => found.tcp_info = Some(value),
                _ => {}
            }
        }
        Ok(found)
    }
}

fn socket_address(family: u8, words: [u8; 16], port: u16, interface: u32) -> io::Result<SocketAddr> {
    let [a, b, c, d, ..] = words;
    match i32::from(family) {
        libc::AF_INET => Ok((Ipv4Addr::new(a, b, c, d), port).into()),
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(words);
            // Only a link-local address means something else on each interface (ipv6(7)).
            let scope = if ip.is_unicast_link_local() { interface } else { 0 };
            Ok(SocketAddrV6::new(ip, port, 0, scope).into())
        }
        _ => Err(malformed()),
    }
}

/// What is left to read.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> io::Result<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn port(&mut self) -> io::Result<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> io::Result<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> io::Result<i32> {
        self.take().map(i32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    /// The next attribute, or `None` at the end: `struct nlattr`, its value, and padding to four bytes.
    pub(super) fn attribute(&mut self) -> io::Result<Option<(u16, &'a [u8])>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let whole = self.0;
        let (length, kind) = (usize::from(self.u16()?), self.u16()?);
        let value = whole.get(4..length).ok_or_else(malformed)?;
        self.0 = whole.get(length.next_multiple_of(4)..).unwrap_or_default();
        Ok(Some((kind & NLA_TYPE_MASK, value)))
    }
}

/// The error for a reply that does not follow the format.
pub(super) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's sock_diag reply is malformed")
}

#[cfg(test)]
mod tests {
    use super::{Envelope, Found, Message, Request, messages};

    fn datagram() -> Vec<u8> {
        let request = Request::exact("127.0.0.1:80".parse().unwrap(), "127.0.0.1:9".parse().unwrap());
        [request.bytes(7), request.bytes(8)].concat()
    }

    #[test]
    fn every_message_of_a_datagram_is_seen() {
        let datagram = datagram();
        let sequences: Vec<_> = messages(&datagram).map(|message| message.unwrap().sequence).collect();
        assert_eq!(sequences, [7, 8]);
    }

    #[test]
    fn a_reply_cut_off_anywhere_is_an_error_and_never_a_panic() {
        // A request has the type of an answer, but its payload is 16 bytes shorter than one.
        let whole = datagram();
        for end in 1..whole.len() {
            let sound = messages(&whole[..end])
                .map(|message| match message.and_then(|message| message.content())? {
                    Message::Socket(payload) => Found::read(payload).map(drop),
                    _ => Ok(()),
                })
                .all(|message: std::io::Result<()>| message.is_ok());
            assert!(!sound, "{end} bytes");
        }
    }

    #[test]
    fn a_reply_with_a_senseless_length_is_an_error_and_the_last_one() {
        for length in [0_u32, 1, 15, 1 << 20, u32::MAX] {
            let mut datagram = datagram();
            datagram[..4].copy_from_slice(&length.to_ne_bytes());
            let read: Vec<_> = messages(&datagram).collect();
            assert!(matches!(read[..], [Err(_)]), "{length}");
        }
    }

    #[test]
    fn an_attribute_with_a_senseless_length_is_an_error() {
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut payload = vec![2; 72];
            payload.extend(length.to_ne_bytes());
            payload.extend([0; 6]);
            assert!(Found::read(&payload).is_err(), "{length}");
        }
    }

    #[test]
    fn the_errno_of_a_refusal_is_kept() {
        for (word, errno) in [(-2_i32, Some(2)), (0, None), (i32::MIN, None)] {
            let payload = word.to_ne_bytes();
            let message = Envelope { kind: 2, flags: 0, sequence: 0, payload: &payload };
            let failed = match message.content() {
                Ok(Message::Failed(errno)) => Some(errno),
                _ => None,
            };
            assert_eq!(failed, errno);
        }
    }
}
