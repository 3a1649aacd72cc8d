//! The socket on which an instance says READY=1 (sd_notify(3)); every generation has its own.
//!
//! The kernel adds the sender's process id (SCM_CREDENTIALS, unix(7)), so that a message from a process that does not
//! belong to the generation counts for nothing.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, UnixCredentials, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// The longest message that is read; systemd has the same limit.
const LONGEST: usize = 4096;

/// The receiving end; the path is removed when it is dropped.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

/// What an instance said.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// The process that sent it.
    pub pid: i32,
    /// It said READY=1.
    pub ready: bool,
}

impl NotifySocket {
    /// Binds the path; what a dead zdr left there is replaced.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(path)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The next message with a known sender. Cancel-safe: a message is read by a call that is not interrupted.
    pub async fn next(&self) -> io::Result<Said> {
        loop {
            if let Some(said) = self.socket.async_io(Interest::READABLE, || receive(&self.socket)).await? {
                return Ok(said);
            }
        }
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Descriptors may come along (FDSTORE, BARRIER): they are closed at once, which is the answer that a barrier waits
/// for. There is room for as many as one message can have, because the kernel hands over those that do not fit in
/// the buffer without telling which (SCM_MAX_FD is 253, unix(7)).
fn receive(socket: &UnixDatagram) -> io::Result<Option<Said>> {
    let mut text = [0; LONGEST];
    let mut parts = [IoSliceMut::new(&mut text)];
    let mut control = cmsg_space!(UnixCredentials, [i32; 253]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message: RecvMsg<'_, '_, ()> = recvmsg(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let (mut pid, length) = (None, message.bytes);
    for part in message.cmsgs().into_iter().flatten() {
        match part {
            ControlMessageOwned::ScmCredentials(sender) => pid = Some(sender.pid()),
            ControlMessageOwned::ScmRights(descriptors) => {
                for descriptor in descriptors {
                    let _ = nix::unistd::close(descriptor);
                }
            }
            _ => {}
        }
    }
    Ok(pid.map(|pid| Said { pid, ready: says_ready(&text[..length]) }))
}

fn says_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_a_whole_line() {
        assert!(says_ready(b"READY=1"));
        assert!(says_ready(b"STATUS=up\nREADY=1\n"));
        for message in [&b"READY=10"[..], b"READY=0", b"xREADY=1", b"", b"\n\n", b"\xff\xfe"] {
            assert!(!says_ready(message));
        }
    }

    #[tokio::test]
    async fn a_message_comes_with_its_sender_and_its_descriptors_are_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = NotifySocket::bind(&path).unwrap();
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.send_to(b"STATUS=starting", &path).unwrap();
        sender.send_to(b"READY=1", &path).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(socket.next().await.unwrap(), Said { pid: own, ready: false });
        assert_eq!(socket.next().await.unwrap(), Said { pid: own, ready: true });
        drop(socket);
        assert!(!path.exists());
    }
}
