//! Making the sockets of a slot, and finding out who else has the address.
//!
//! SO_REUSEPORT lets every process of the same user listen on our addresses, and would share connections with it. So we
//! look first, and once more when we have ours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::fchown;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen, setsockopt, socket, sockopt,
};
use nix::sys::stat::fstat;

use super::ListenError;
use crate::address::{Address, Listener};
use crate::edges::kernel::sock_diag::{Bound, SockDiag, Transport};
use crate::edges::kernel::sockopt as kernel;
use crate::edges::processes::holder_anywhere;

/// The first socket of a listener, and the address it got. Sockets with these inodes are ours: they may have the address as
/// well, where one of the two is wider.
pub(super) fn first(listener: &Listener, ours: &[u64]) -> Result<(OwnedFd, Address), ListenError> {
    nobody_else(listener, ours)?;
    let (made, listener) = match make(listener, None, false) {
        Err(error) if lacks_ipv6(&error) && is_any_ipv6(listener) => {
            let any = listener.address.socket().map_or(0, |socket| socket.port());
            let listener = with_socket(listener, SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), any));
            (make(&listener, None, false), listener)
        }
        made => (made, listener.clone()),
    };
    let socket = made.map_err(|source| refused(&listener, source))?;
    let address = address_of(&socket).map_err(|source| ListenError::socket(&listener, source))?;
    let listener = with_socket(&listener, address);
    nobody_else(&listener, &[ours, &[inode(&socket)]].concat())?;
    Ok((socket, listener.address))
}

/// One more socket of a listener; those with these inodes are ours.
///
/// All belong to one user: the kernel lets nobody else share the address (`inet_csk_bind_conflict`), and it asks whom the
/// socket's file belongs to, not who binds it (`sockfs_setattr` in net/socket.c).
///
/// A deaf one takes no connection yet: their first packets are dropped, and come again.
pub(super) fn another(listener: &Listener, ours: &[u64], uid: u32, deaf: bool) -> Result<OwnedFd, ListenError> {
    nobody_else(listener, ours)?;
    make(listener, Some(uid), deaf).map_err(|source| refused(listener, source))
}

fn make(listener: &Listener, uid: Option<u32>, deaf: bool) -> io::Result<OwnedFd> {
    let (address, kind) = match &listener.address {
        Address::Tcp(address) => (*address, SockType::Stream),
        Address::Udp(address) => (*address, SockType::Datagram),
        Address::Unix(_) | Address::Abstract(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let options = &listener.options;
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if uid.is_some_and(|uid| fstat(&fd).is_ok_and(|made| made.st_uid != uid)) {
        fchown(&fd, uid, None)?;
    }
    setsockopt(&fd, sockopt::ReusePort, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &options.v6only)?;
    }
    if options.freebind {
        kernel::set(fd.as_fd(), libc::IPPROTO_IP, libc::IP_FREEBIND, 1)?;
    }
    if kind == SockType::Stream {
        // Connections of an earlier run that wait out their TIME_WAIT do not keep the address (socket(7)).
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::TcpNoDelay, &options.nodelay)?;
        if options.defer_accept.is_some() {
            set_defer_accept(fd.as_fd(), options.defer_accept)?;
        }
    }
    if deaf {
        set_least_hops(&fd, listener, MOST_HOPS)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen_again(listener, &fd)?;
    Ok(fd)
}

/// None hands a connection out as soon as it is made.
pub(super) fn set_defer_accept(fd: BorrowedFd<'_>, seconds: Option<u32>) -> io::Result<()> {
    let seconds = i32::try_from(seconds.unwrap_or(0)).map_err(io::Error::other)?;
    kernel::set(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// More than any packet has that was not sent on this very link with this in mind (RFC 5082).
const MOST_HOPS: i32 = 255;

/// Drops the packets that may travel fewer hops from here on (IP_MINTTL, ip(7); `tcp_v4_rcv`). Datagrams it leaves alone.
pub(super) fn set_least_hops(fd: &OwnedFd, listener: &Listener, hops: i32) -> io::Result<()> {
    /// `include/uapi/linux/in6.h`; libc has no name for it on every target.
    const IPV6_MINHOPCOUNT: i32 = 73;
    if listener.address.socket().is_some_and(|address| address.is_ipv6()) {
        kernel::set(fd.as_fd(), libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT, hops)?;
    }
    kernel::set(fd.as_fd(), libc::IPPROTO_IP, libc::IP_MINTTL, hops)
}

/// With the backlog that was asked for; a socket that listens already only gets the new backlog (listen(2)).
pub(super) fn listen_again(listener: &Listener, fd: impl AsFd) -> io::Result<()> {
    match listener.address.is_stream() {
        true => kernel_listen(fd, i32::try_from(listener.options.backlog).unwrap_or(i32::MAX)),
        false => Ok(()),
    }
}

/// The kernel takes any number and caps it at `net.core.somaxconn` (listen(2)); the type knows a lower limit.
fn kernel_listen(fd: impl AsFd, backlog: i32) -> io::Result<()> {
    Ok(listen(&fd, Backlog::new(backlog).unwrap_or(Backlog::MAXALLOWABLE))?)
}

/// By which the kernel's tables and /proc name a socket.
pub(super) fn inode(socket: impl AsFd) -> u64 {
    fstat(socket).map(|stat| stat.st_ino).unwrap_or_default()
}

/// Refuses where a socket that is not one of ours would share the address.
///
/// Ours are known by their inodes.
pub(super) fn nobody_else(listener: &Listener, ours: &[u64]) -> Result<(), ListenError> {
    let Some(address) = listener.address.socket().filter(|address| address.port() != 0) else {
        return Ok(());
    };
    // Where the kernel does not tell who listens, bind(2) still refuses all but those who share on purpose.
    let transport = if listener.address.is_stream() { Transport::Tcp } else { Transport::Udp };
    let Ok(bound) = SockDiag::open().and_then(|mut diag| diag.bound(transport, address.port())) else {
        return Ok(());
    };
    let foreign =
        |other: &&Bound| overlap(address, listener.options.v6only, other) && !ours.contains(&other.inode.into());
    match bound.iter().find(foreign) {
        Some(other) => {
            Err(ListenError::InUse { address: listener.address.to_string(), holder: holder_anywhere(other.inode) })
        }
        None => Ok(()),
    }
}

/// True where both would get packets for one address (the port is the same already).
fn overlap(ours: SocketAddr, v6only: bool, other: &Bound) -> bool {
    takes(ours, v6only, other.address.ip()) || takes(other.address, other.only_v6, ours.ip())
}

/// True where a socket with this address gets what comes to that one, if nobody is there who has exactly that.
pub(super) fn takes(address: SocketAddr, only_v6: bool, ip: IpAddr) -> bool {
    match address.ip() {
        IpAddr::V6(any) if any.is_unspecified() => ip.is_ipv6() || !only_v6,
        IpAddr::V4(any) if any.is_unspecified() => ip.is_ipv4(),
        one => one == ip,
    }
}

pub(super) fn refused(listener: &Listener, source: io::Error) -> ListenError {
    let address = listener.address.to_string();
    match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address, holder: None },
        _ => ListenError::Socket { address, source },
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

fn is_any_ipv6(listener: &Listener) -> bool {
    listener.address.socket().is_some_and(|address| address.is_ipv6() && address.ip().is_unspecified())
}

fn with_socket(listener: &Listener, socket: SocketAddr) -> Listener {
    let address = match listener.address {
        Address::Udp(_) => Address::Udp(socket),
        _ => Address::Tcp(socket),
    };
    Listener { address, ..listener.clone() }
}

pub(super) fn address_of(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let storage: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddr::new(address.ip().into(), address.port()));
    let v6 = || storage.as_sockaddr_in6().map(|address| SocketAddr::new(address.ip().into(), address.port()));
    v4.or_else(v6).ok_or_else(|| io::Error::other("the kernel names no address"))
}
