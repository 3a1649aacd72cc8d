//! Socket options that have no safe wrapper: plain numbers, and what a listening socket tells of its queue.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets an option whose value is an `int` (setsockopt(2)).
pub fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    set_value(fd, level, name, &value)
}

/// Reads an option whose value is an `int` (getsockopt(2)).
pub fn number(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    get(fd, level, name)
}

/// Sets an option whose value is this plain C structure.
pub(super) fn set_value<T>(fd: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length describe `value`, which lives for the time of the call.
    match unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many connections wait in the accept queue of a listening TCP socket.
///
/// TCP_INFO on a listening socket gives the queue in `tcpi_unacked` (kernel: `tcp_get_info` in net/ipv4/tcp.c).
pub fn accept_queue(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let info: libc::tcp_info = get(fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    usize::try_from(info.tcpi_unacked).map_err(io::Error::other)
}

/// How many connections may wait there: `tcpi_sacked`, in the same place.
pub fn accept_limit(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let info: libc::tcp_info = get(fd, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Ok(info.tcpi_sacked)
}

/// How many bytes of datagrams wait in a socket, as the kernel accounts for them (SO_MEMINFO, `SK_MEMINFO_RMEM_ALLOC`).
pub fn receive_queue(fd: BorrowedFd<'_>) -> io::Result<usize> {
    usize::try_from(memory(fd)?[0]).map_err(io::Error::other)
}

/// How much this socket dropped for want of room: datagrams, or of a listening TCP socket packets of handshakes that found
/// the queue full (SO_MEMINFO, `SK_MEMINFO_DROPS`; `tcp_listendrop` in include/net/tcp.h).
pub fn drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(memory(fd)?[8])
}

/// By the numbers of `SK_MEMINFO_` in include/uapi/linux/sock_diag.h.
fn memory(fd: BorrowedFd<'_>) -> io::Result<[u32; 9]> {
    const SO_MEMINFO: i32 = 55;
    get(fd, libc::SOL_SOCKET, SO_MEMINFO)
}

/// Reads an option of plain numbers; what the kernel does not fill in stays zero.
fn get<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length describe `value`, which lives for the time of the call.
    match unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) } {
        // SAFETY: `Plain` types are valid with any bytes, and all of them were zeroed first.
        0 => Ok(unsafe { value.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Types of integers alone, so that any bytes are a value.
trait Plain {}
impl Plain for i32 {}
impl Plain for libc::tcp_info {}
impl Plain for [u32; 9] {}
