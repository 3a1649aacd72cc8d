//! What waits in a listening socket: counted, and taken out where nobody will look.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::fstat;

use crate::address::{Address, Listener};
use crate::edges::kernel::sock_diag::SockDiag;
use crate::edges::kernel::sockopt::{accept_limit, accept_queue, drops, receive_queue};

/// What waits in the sockets of a listener, and what did not find room.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Which listener.
    pub listener: Listener,
    /// How many slots it has.
    pub slots: usize,
    /// How many connections wait in all of them. Datagrams are not counted.
    pub waiting: usize,
    /// How many may wait in the slots that new ones go to.
    pub limit: u32,
    /// How many connections or datagrams were dropped because a slot was full. Not known of Unix sockets, whose clients
    /// wait or are told.
    pub overflows: u64,
}

impl Queue {
    /// Of a listener with these sockets, some of which get what is new.
    pub(super) fn of(listener: &Listener, slots: usize, steered: &[BorrowedFd<'_>], all: &[BorrowedFd<'_>]) -> Self {
        let is_stream = listener.address.is_stream();
        let dropped = |socket: &BorrowedFd<'_>| drops(*socket).map_or(0, u64::from);
        Self {
            listener: listener.clone(),
            slots,
            waiting: if is_stream { all.iter().map(|socket| waiting(listener, *socket)).sum() } else { 0 },
            limit: steered.iter().filter_map(|socket| backlog(listener, *socket).ok()).fold(0, u32::saturating_add),
            overflows: all.iter().map(dropped).sum(),
        }
    }
}

/// How many connections wait in this socket; datagrams that wait count as one.
pub fn waiting(listener: &Listener, socket: BorrowedFd<'_>) -> usize {
    match listener.address {
        Address::Tcp(_) => accept_queue(socket).unwrap_or(0),
        Address::Udp(_) => usize::from(receive_queue(socket).unwrap_or(0) > 0),
        Address::Unix(_) | Address::Abstract(_) => unix_queue(socket).unwrap_or(0),
    }
}

fn unix_queue(socket: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(unix_queues(socket)?.0)
}

/// What waits in a Unix socket, and how many may.
fn unix_queues(socket: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    let inode = u32::try_from(fstat(socket)?.st_ino).map_err(io::Error::other)?;
    SockDiag::open()?.unix_queue(inode)
}

/// How many connections may wait in this socket, which listens.
pub(super) fn backlog(listener: &Listener, socket: BorrowedFd<'_>) -> io::Result<u32> {
    match listener.address {
        Address::Tcp(_) => accept_limit(socket),
        Address::Unix(_) | Address::Abstract(_) => u32::try_from(unix_queues(socket)?.1).map_err(io::Error::other),
        Address::Udp(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Takes out and closes whatever waits in a socket, and counts what was a client's.
pub(super) fn sweep(listener: &Listener, socket: &OwnedFd, probes: &VecDeque<SocketAddr>) -> usize {
    if waiting(listener, socket.as_fd()) == 0 || set_nonblocking(socket.as_fd(), true).is_err() {
        return 0;
    }
    let Ok(socket) = socket.try_clone() else { return 0 };
    match listener.address {
        Address::Tcp(_) => {
            let socket = TcpListener::from(socket);
            let client = || socket.accept().ok().map(|(_, client)| client);
            std::iter::from_fn(client).filter(|client| !probes.contains(client)).count()
        }
        Address::Udp(_) => {
            let socket = UdpSocket::from(socket);
            std::iter::from_fn(|| socket.recv(&mut []).ok()).count()
        }
        // Those of probes cannot be told from others, and a probe hangs up by itself.
        Address::Unix(_) | Address::Abstract(_) => {
            let socket = UnixListener::from(socket);
            std::iter::from_fn(|| socket.accept().ok()).filter(|(client, _)| is_open(client)).count()
        }
    }
}

/// False where the client has hung up already.
fn is_open(client: &std::os::unix::net::UnixStream) -> bool {
    let peek = nix::sys::socket::MsgFlags::MSG_PEEK | nix::sys::socket::MsgFlags::MSG_DONTWAIT;
    let fd = std::os::fd::AsRawFd::as_raw_fd(client);
    nix::sys::socket::recv(fd, &mut [0], peek) != Ok(0)
}

/// True where somebody has ended this socket for everybody who has it (shutdown(2)).
pub fn is_shut_down(listener: &Listener, socket: BorrowedFd<'_>) -> bool {
    matches!(listener.address, Address::Tcp(_)) && getsockopt(&socket, sockopt::AcceptConn) == Ok(false)
}

/// True where O_NONBLOCK is set.
pub(super) fn is_nonblocking(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?).contains(OFlag::O_NONBLOCK))
}

/// O_NONBLOCK belongs to the socket, and so to everybody who has it (fcntl(2)).
pub(super) fn set_nonblocking(socket: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    let wanted = if nonblocking { flags | OFlag::O_NONBLOCK } else { flags - OFlag::O_NONBLOCK };
    fcntl(socket, FcntlArg::F_SETFL(wanted))?;
    Ok(())
}
