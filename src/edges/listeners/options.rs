//! Socket options that a server sets on its own socket before it binds, for the socket that it gets instead.
//!
//! Those that accepted connections inherit (kernel: `sk_clone_lock`, `tcp_create_openreq_child`) or that belong to the
//! listener, as far as they are plain numbers. What is set after bind(2) is set on the right socket by the server itself.

use std::os::fd::BorrowedFd;

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
use tracing::debug;

use crate::edges::kernel::sockopt::{number, set};

const COPIED: [(i32, i32); 14] = [
    (SOL_SOCKET, libc::SO_KEEPALIVE),
    (SOL_SOCKET, libc::SO_PRIORITY),
    (SOL_SOCKET, libc::SO_MARK),
    (IPPROTO_IP, libc::IP_TOS),
    (IPPROTO_IP, libc::IP_TRANSPARENT),
    (IPPROTO_IPV6, libc::IPV6_TCLASS),
    (IPPROTO_TCP, libc::TCP_NODELAY),
    (IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (IPPROTO_TCP, libc::TCP_KEEPCNT),
    (IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    (IPPROTO_TCP, libc::TCP_FASTOPEN),
];

/// The sizes of buffers, each with its bit in SO_BUF_LOCK (socket(7), Linux 5.17): one that nobody has set grows with need,
/// and would not any more if it was copied.
const BUFFERS: [(i32, i32); 2] = [(libc::SO_SNDBUF, 1), (libc::SO_RCVBUF, 2)];

/// Gives `to` the options of `from`. For a `listed` one the operator's own settings are not taken back. What one of the two
/// does not have or may not have is left out: the server serves without.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, listed: bool) {
    for (level, name) in COPIED {
        let (Ok(wanted), Ok(here)) = (number(from, level, name), number(to, level, name)) else { continue };
        if wanted == here || listed && wanted == 0 {
            continue;
        }
        if let Err(error) = set(to, level, name, wanted) {
            debug!(level, name, %error, "cannot set a socket option as the server has set it");
        }
    }
    let locked = number(from, SOL_SOCKET, libc::SO_BUF_LOCK).unwrap_or_default();
    for (name, _) in BUFFERS.into_iter().filter(|(_, bit)| locked & bit != 0) {
        // The kernel doubles what it is given, and tells what it has made of it.
        if let Ok(size) = number(from, SOL_SOCKET, name) {
            let _ = set(to, SOL_SOCKET, name, size / 2);
        }
    }
}
