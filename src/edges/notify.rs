//! The socket on which an instance says how it is (sd_notify(3)); every instance has its own.
//!
//! The kernel adds the sender's process id (SCM_CREDENTIALS, unix(7)), so that a message from a process that does not
//! belong to the generation counts for nothing.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, UnixCredentials, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::words::Words;
use crate::runtime_directory::{beside, notify_folders, notify_name};
use crate::supervisor::Instance;

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
    /// What it said.
    pub words: Words,
}

/// Where the notify sockets of a zdr are.
#[derive(Debug)]
pub struct NotifyPlace {
    /// The paths begin with it and end with a dot and the instance.
    start: PathBuf,
    /// The user and the group who may send to them, where it is not zdr's own.
    sender: Option<(u32, u32)>,
}

impl NotifyPlace {
    /// Beside the admin socket, in a directory that is ours alone.
    pub fn beside(admin: &Path) -> Self {
        Self { start: admin.to_owned(), sender: None }
    }

    /// Where a user can send to them who must not reach the admin socket: in a folder of ours that everybody can pass
    /// through, but nobody can list or write to. A path rather than an abstract name, to which everybody could send.
    pub fn for_sender(uid: u32, gid: u32, admin: &Path) -> io::Result<Self> {
        let own = nix::unistd::geteuid().as_raw();
        let mut why = Vec::new();
        for folder in notify_folders(own) {
            match passable(&folder, own) {
                Ok(()) => {
                    let place = Self { start: folder.join(notify_name(admin)), sender: Some((uid, gid)) };
                    let _alone = place.alone()?;
                    remove_left(&folder);
                    return Ok(place);
                }
                Err(error) => why.push(format!("{}: {error}", folder.display())),
            }
        }
        Err(io::Error::other(format!("no place for a notify socket that the user can reach: {}", why.join("; "))))
    }

    /// Where the socket of an instance is.
    pub fn path(&self, instance: Instance) -> PathBuf {
        beside(&self.start, &instance.to_string())
    }

    /// Only one zdr at a time changes the folder (flock(2)): a socket answers as a dead one does for a moment while it is made.
    fn alone(&self) -> io::Result<File> {
        let folder = self.start.parent().unwrap_or(Path::new("/"));
        // Somebody may have tidied up since the last time, as is usual below /tmp.
        passable(folder, nix::unistd::geteuid().as_raw())?;
        let folder = File::open(folder)?;
        folder.lock()?;
        Ok(folder)
    }

    /// Makes the socket of an instance.
    pub fn bind(&self, instance: Instance) -> io::Result<NotifySocket> {
        let path = self.path(instance);
        let _alone = self.sender.map(|_| self.alone()).transpose()?;
        let socket = NotifySocket::bind(&path)?;
        self.give(&path)?;
        Ok(socket)
    }

    /// Gives a socket here to the one who may send to it.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        let Some((uid, gid)) = self.sender else { return Ok(()) };
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        chown(path, Some(uid), Some(gid))
    }
}

/// Made by us; one that is there must be ours, and nobody else's to change. A link to another place is neither.
fn passable(folder: &Path, own: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("it is there and belongs to somebody else; remove it"));
    }
    // The mask of permissions has its say when it is made.
    fs::set_permissions(folder, Permissions::from_mode(0o711))
}

/// What killed zdrs left: nobody listens there any more (ECONNREFUSED, unix(7)).
fn remove_left(folder: &Path) {
    let Ok(caller) = std::os::unix::net::UnixDatagram::unbound() else { return };
    for socket in fs::read_dir(folder).into_iter().flatten().flatten() {
        let refused =
            caller.connect(socket.path()).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        if refused {
            let _ = fs::remove_file(socket.path());
        }
    }
}

impl NotifySocket {
    /// Binds the path; what a dead zdr left there is replaced.
    fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(path)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
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
    Ok(pid.map(|pid| Said { pid, words: Words::read(&text[..length]) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Generation;

    #[tokio::test]
    async fn a_folder_that_was_removed_is_made_again_and_one_that_others_can_change_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("folder");
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let place = NotifyPlace { start: folder.join("name"), sender: Some(own) };
        for number in 1..3 {
            let _socket = place.bind(Instance { generation: Generation(1), number }).unwrap();
            assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o711);
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        assert!(
            place
                .bind(Instance { generation: Generation(3), number: 1 })
                .unwrap_err()
                .to_string()
                .contains("belongs to somebody else")
        );
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
        assert_eq!(socket.next().await.unwrap(), Said { pid: own, words: Words::read(b"STATUS=starting") });
        assert_eq!(socket.next().await.unwrap(), Said { pid: own, words: Words::of_ready(true) });
        drop(socket);
        assert!(!path.exists());
    }
}
