//! `sock_diag(7)` for Unix sockets: who has accepted, what waits, what is unread (`include/uapi/linux/unix_diag.h`).
//!
//! It never connects: who listens is read from the kernel's tables. A stream and what it was accepted on have one name, so
//! what a server has accepted is found by the name of its listener.

use std::collections::HashSet;
use std::io;

use super::wire::{Cursor, NLM_F_DUMP, NLM_F_REQUEST, Request, malformed, state};
use super::{Accepted, SockDiag};

/// An open stream, seen from the server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixConnection {
    /// The inode by which `/proc/PID/fd` names it.
    pub inode: u32,
    /// The client has said something that the server has not read yet.
    pub unread: bool,
    /// The server has said something that the client has not read yet.
    pub untaken: bool,
}

const UDIAG_SHOW_NAME: u32 = 0x01;
const UDIAG_SHOW_PEER: u32 = 0x04;
const UDIAG_SHOW_RQLEN: u32 = 0x10;

const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_SHUTDOWN: u16 = 6;

/// Both halves of a connection are closed (`SHUTDOWN_MASK` in `include/net/sock.h`).
const SHUTDOWN_MASK: u8 = 3;

impl SockDiag {
    /// How many connections wait in the accept queue of a listening socket, and how many may (`sk_diag_show_rqlen`).
    pub fn unix_queue(&mut self, inode: u32) -> io::Result<(usize, usize)> {
        let mut queues = None;
        self.ask_for_one(&exact(inode, UDIAG_SHOW_RQLEN), &mut |payload| {
            queues = Found::read(payload)?.queues;
            Ok(())
        })?;
        let (waiting, limit) = queues.ok_or(io::ErrorKind::NotFound)?;
        let number = |count: u32| usize::try_from(count).map_err(io::Error::other);
        Ok((number(waiting)?, number(limit)?))
    }

    /// Looks up, without a dump, the server's end of a connection, by the inode of the client's end.
    pub fn unix_accepted(&mut self, client_inode: u32) -> io::Result<Accepted> {
        let mut accepted = Accepted::NotConnected;
        self.ask_for_one(&exact(client_inode, UDIAG_SHOW_PEER), &mut |payload| {
            accepted = Found::read(payload)?.standing();
            Ok(())
        })?;
        Ok(accepted)
    }

    /// The streams that were accepted on sockets bound to one of these names; the kernel lists none that waits to be
    /// (`sk_diag_dump` in net/unix/diag.c). A path is a name as it was given to bind(2), whatever it is called today; an
    /// abstract name begins with a zero byte.
    pub fn unix_connections(&mut self, names: &HashSet<Vec<u8>>) -> io::Result<Vec<UnixConnection>> {
        let request = dump(1 << state::ESTABLISHED, UDIAG_SHOW_NAME | UDIAG_SHOW_RQLEN);
        let mut found = self.dump_whole(&request, |payload| {
            let found = Found::read(payload)?;
            // The client's end has no name, unless it was bound as well.
            let ours = found.name.is_some_and(|name| names.contains(name));
            let (unread, untaken) = found.queues.unwrap_or_default();
            let connection = UnixConnection { inode: found.inode, unread: unread > 0, untaken: untaken > 0 };
            Ok(ours.then_some((found.cookie, connection)))
        })?;
        // As in a TCP dump, a change between two datagrams can show a socket twice.
        found.sort_unstable_by_key(|connection| connection.map(|(cookie, _)| cookie));
        found.dedup_by_key(|connection| connection.map(|(cookie, _)| cookie));
        Ok(found.into_iter().flatten().map(|(_, connection)| connection).collect())
    }
}

impl Found<'_> {
    /// How far the server is with a connection, seen from the client's end. The other end has no inode before it is accepted,
    /// and none again once it is closed; but then both halves are closed (`unix_release_sock` in net/unix/af_unix.c).
    fn standing(&self) -> Accepted {
        match self.peer {
            Some(0) if self.shutdown == SHUTDOWN_MASK => Accepted::NotConnected,
            Some(0) => Accepted::Waiting,
            Some(inode) => Accepted::By { inode },
            None => Accepted::NotConnected,
        }
    }
}

/// Asks for the one socket with this inode, with any cookie.
fn exact(inode: u32, show: u32) -> Request {
    Request { flags: NLM_F_REQUEST, body: question(u32::MAX, inode, show) }
}

/// Asks for all sockets in `states` (a bit each).
fn dump(states: u32, show: u32) -> Request {
    Request { flags: NLM_F_REQUEST | NLM_F_DUMP, body: question(states, 0, show) }
}

/// `struct unix_diag_req`: family, protocol and padding, states, inode, what to show, cookie.
fn question(states: u32, inode: u32, show: u32) -> Vec<u8> {
    let family = u8::try_from(libc::AF_UNIX).expect("a family fits a byte");
    let mut question = vec![family, 0, 0, 0];
    question.extend(states.to_ne_bytes());
    question.extend(inode.to_ne_bytes());
    question.extend(show.to_ne_bytes());
    question.extend(u64::MAX.to_ne_bytes());
    question
}

/// One Unix socket: `struct unix_diag_msg` and the attributes that zdr asks for.
struct Found<'a> {
    inode: u32,
    cookie: u64,
    name: Option<&'a [u8]>,
    peer: Option<u32>,
    /// Of a stream: bytes not read yet, bytes the peer has not read yet. Of a listener: connections, backlog.
    queues: Option<(u32, u32)>,
    shutdown: u8,
}

impl<'a> Found<'a> {
    fn read(payload: &'a [u8]) -> io::Result<Self> {
        let mut fields = Cursor(payload);
        let [family, _kind, _state, _padding] = fields.take()?;
        if i32::from(family) != libc::AF_UNIX {
            return Err(malformed());
        }
        let (inode, cookie) = (fields.u32()?, fields.u64()?);
        let mut found = Self { inode, cookie, name: None, peer: None, queues: None, shutdown: 0 };
        while let Some((kind, value)) = fields.attribute()? {
            let mut words = Cursor(value);
            match kind {
                UNIX_DIAG_NAME => found.name = Some(plain(value)),
                UNIX_DIAG_PEER => found.peer = Some(words.u32()?),
                UNIX_DIAG_RQLEN => found.queues = Some((words.u32()?, words.u32()?)),
                UNIX_DIAG_SHUTDOWN => found.shutdown = value.first().copied().unwrap_or_default(),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The kernel keeps a path with its final zero; in an abstract name a zero is a byte like any other (unix(7)).
fn plain(name: &[u8]) -> &[u8] {
    match name.first() {
        Some(0) => name,
        _ => name.split(|&byte| byte == 0).next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
