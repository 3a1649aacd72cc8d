//! Where clients come in, and who may.
//!
//! Never reads what they say.

use std::io;

use tokio::net::{TcpListener, UnixListener};

use super::socket::Stream;

/// Where clients come in.
pub enum Door {
    /// A Unix socket, whose peers have a uid.
    Unix(UnixListener),
    /// A TCP address, whose peers may be anybody.
    Tcp(TcpListener),
}

impl Door {
    /// The next client, and who it is if this door can tell.
    pub(super) async fn accept(&self) -> io::Result<(Box<dyn Stream>, Option<Peer>)> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred().map_or(Peer::Unknown, |peer| Peer::Uid(peer.uid()));
                Ok((Box::new(stream), Some(peer)))
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // An event is worth its packet: without this, the second small write waits for the first one's acknowledgement.
                // It fails only if the client is already gone, which the first read will tell.
                let _ = stream.set_nodelay(true);
                Ok((Box::new(stream), None))
            }
        }
    }
}

/// Who is at the other end of a Unix socket.
pub(super) enum Peer {
    Uid(u32),
    /// The kernel would not say, so it is nobody who was allowed.
    Unknown,
}

/// `guests` are the uids that may come through a Unix door, `None` for everybody.
pub(super) fn is_welcome(peer: Option<Peer>, guests: Option<&[u32]>) -> bool {
    match (peer, guests) {
        (None, _) | (_, None) => true,
        (Some(Peer::Uid(uid)), Some(guests)) => guests.contains(&uid),
        (Some(Peer::Unknown), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_the_kernel_does_not_name_is_no_guest() {
        assert!(!is_welcome(Some(Peer::Unknown), Some(&[0])));
    }
}
