//! A connection of a probe: made within its time limit, and followed from the queue to whoever takes it out.
//!
//! Never says a word on it, but the end of a line to a server that waits for one.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::fstat;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::http::Stream;
use crate::edges::kernel::sock_diag::{Accepted, SockDiag};
use crate::edges::listeners::Target;

/// A Unix socket whose queue is full is tried again this often: an accept takes microseconds.
const ROOM_INTERVAL: Duration = Duration::from_millis(1);

/// A connection, and how the kernel knows it. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: Stream,
    pub(super) ends: Ends,
}

/// How the kernel knows a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// By both addresses.
    Tcp {
        /// Ours.
        client: SocketAddr,
        /// The server's.
        server: SocketAddr,
    },
    /// By the inode of our end.
    Unix {
        /// It.
        client: u32,
    },
}

impl Connection {
    /// To a listener of a generation.
    pub(super) async fn to(target: Target, limit: Duration) -> Result<Self, String> {
        match target {
            Target::Tcp(socket, to) => Self::tcp(socket.connect(to), limit).await,
            Target::Unix(to) => {
                let address = to.as_pathname().map(UnixAddr::new);
                let name = || std::os::linux::net::SocketAddrExt::as_abstract_name(&to).map(UnixAddr::new_abstract);
                let address = address.or_else(name).unwrap_or(Err(Errno::EINVAL));
                Self::unix(address.map_err(cannot)?, limit).await
            }
        }
    }

    /// Says as little as can be said.
    pub(super) fn nudge(&self) {
        let word = b"\r\n";
        // A connection that takes no two bytes is seen to be closed soon enough.
        let _ = match &self.stream {
            Stream::Tcp(stream) => (&*stream).write(word),
            Stream::Unix(stream) => (&*stream).write(word),
        };
    }

    /// To wherever it may be.
    pub(super) async fn to_address(to: SocketAddr, limit: Duration) -> Result<Self, String> {
        Self::tcp(TcpStream::connect(to), limit).await
    }

    /// To wherever it may be.
    pub(super) async fn to_path(path: &Path, limit: Duration) -> Result<Self, String> {
        Self::unix(UnixAddr::new(path).map_err(cannot)?, limit).await
    }

    async fn tcp(connecting: impl Future<Output = io::Result<TcpStream>>, limit: Duration) -> Result<Self, String> {
        let connected = timeout(limit, connecting).await.map_err(|_| "cannot connect: no answer".to_owned())?;
        let made = || -> io::Result<Self> {
            let stream = connected?;
            let ends = Ends::Tcp { client: stream.local_addr()?, server: stream.peer_addr()? };
            Ok(Self { stream: Stream::Tcp(stream.into_std()?), ends })
        };
        made().map_err(cannot)
    }

    /// Without blocking, a full queue is said at once and not waited for (EAGAIN, connect(2)).
    async fn unix(to: UnixAddr, limit: Duration) -> Result<Self, String> {
        let socket = || -> io::Result<(OwnedFd, Ends)> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
            let client = u32::try_from(fstat(&socket)?.st_ino).map_err(io::Error::other)?;
            Ok((socket, Ends::Unix { client }))
        };
        let (socket, ends) = socket().map_err(cannot)?;
        let connecting = async {
            loop {
                match connect(socket.as_raw_fd(), &to) {
                    Err(Errno::EAGAIN) => sleep(ROOM_INTERVAL).await,
                    result => return result,
                }
            }
        };
        let connected = timeout(limit, connecting).await.map_err(|_| "cannot connect: the queue is full".to_owned())?;
        connected.map_err(cannot)?;
        Ok(Self { stream: Stream::Unix(socket.into()), ends })
    }
}

fn cannot(error: impl Into<io::Error>) -> String {
    format!("cannot connect: {}", error.into())
}

impl Ends {
    /// What became of the server's end.
    pub(super) fn accepted(self, diag: &mut SockDiag) -> io::Result<Accepted> {
        match self {
            Self::Tcp { client, server } => diag.accepted(client, server),
            Self::Unix { client } => diag.unix_accepted(client),
        }
    }

    /// True where this machine has the server's end: its sockets can be looked up. Others are taken at their word.
    pub(super) fn are_here(self) -> bool {
        match self {
            Self::Tcp { server, .. } => is_here(server),
            Self::Unix { .. } => true,
        }
    }
}

/// An address that this machine answers itself.
pub(super) fn is_here(address: SocketAddr) -> bool {
    address.ip().is_loopback() || std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}
