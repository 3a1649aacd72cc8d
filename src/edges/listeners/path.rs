//! A Unix path listener with slots: sockets bound beside the path, one of which has its name.
//!
//! The cut-over is rename(2) of a hard link: the path names one socket or the other at every moment. What was at the path
//! and is not ours is never touched, unless it is a socket on which nobody listens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, socket, sockopt};
use nix::unistd::{Group, User};

use super::ListenError;
use super::make::{listen_again, refused};
use crate::address::{LONGEST_UNIX_PATH, Listener};
use crate::edges::processes::program;

/// The sockets of one path.
#[derive(Debug)]
pub(super) struct Named {
    path: PathBuf,
    sides: BTreeMap<usize, Side>,
    steered: usize,
    /// The slot that has the name instead, while what is new is paused.
    paused: Option<usize>,
    /// Nobody is to find it: nobody will serve there, or not yet.
    hidden: bool,
    /// Somebody else has taken the path, and that was said.
    lost: bool,
}

/// A socket, and the name beside the path by which it is kept.
#[derive(Debug)]
struct Side {
    socket: OwnedFd,
    path: PathBuf,
    /// Of the socket's file.
    inode: u64,
}

impl Named {
    /// Binds two slots. Nobody finds them before one is steered to.
    pub(super) fn bind(path: &Path, listener: &Listener) -> Result<Self, ListenError> {
        may_be_replaced(path, listener)?;
        let (path, sides) = (path.to_owned(), BTreeMap::new());
        let mut named = Self { path, sides, steered: 0, paused: None, hidden: true, lost: false };
        named.socket(0, listener)?;
        named.socket(1, listener)?;
        Ok(named)
    }

    /// A server's own socket that it has bound to this path.
    pub(super) fn of(slot: usize, path: &Path, socket: OwnedFd) -> io::Result<Self> {
        let side = side_path(path, slot)?;
        remove(&side)?;
        fs::hard_link(path, &side)?;
        let inode = fs::symlink_metadata(&side)?.ino();
        let sides = BTreeMap::from([(slot, Side { socket, path: side, inode })]);
        Ok(Self { path: path.to_owned(), sides, steered: slot, paused: None, hidden: false, lost: false })
    }

    /// The socket of a slot, where it has one.
    pub(super) fn get(&self, slot: usize) -> Option<&OwnedFd> {
        self.sides.get(&slot).map(|side| &side.socket)
    }

    /// The socket of a slot, made where there is none. It has no name yet that clients know.
    ///
    /// One whose name a server has removed, as the address that it found itself bound to, can be found by nobody any more:
    /// it is made anew.
    pub(super) fn socket(&mut self, slot: usize, listener: &Listener) -> Result<&OwnedFd, ListenError> {
        self.put_sides_back();
        if !self.sides.get(&slot).is_some_and(Side::has_its_name) {
            let side = self.make(slot, listener).map_err(|source| ListenError::socket(listener, source))?;
            self.sides.insert(slot, side);
        }
        Ok(&self.sides[&slot].socket)
    }

    fn make(&self, slot: usize, listener: &Listener) -> io::Result<Side> {
        let path = side_path(&self.path, slot)?;
        // As the one that has the name now, so that a server which has set them itself need not do so again.
        let like = fs::symlink_metadata(&self.path).ok().filter(|_| self.sides.contains_key(&self.target()));
        let (socket, inode) = make(&path, listener, like.as_ref())?;
        Ok(Side { socket, path, inode })
    }

    /// Every socket with its slot.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.sides.iter().map(|(slot, side)| (*slot, side.socket.as_fd()))
    }

    /// The slot that has the name.
    pub(super) fn target(&self) -> usize {
        self.paused.unwrap_or(self.steered)
    }

    /// The one that has it again when a pause ends.
    pub(super) fn target_behind(&self) -> usize {
        self.steered
    }

    /// The names beside the path.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.sides.values().map(|side| side.path.as_path())
    }

    /// The name by which only this slot is reached.
    pub(super) fn aim(&self, slot: usize) -> io::Result<SocketAddr> {
        let side = self.sides.get(&slot).ok_or_else(|| io::Error::other("it has no socket there"))?;
        SocketAddr::from_pathname(&side.path)
    }

    /// Gives the path to this slot, atomically. While it is paused, later.
    pub(super) fn steer(&mut self, slot: usize) -> io::Result<()> {
        if self.sides.contains_key(&slot) {
            self.steered = slot;
        }
        self.hidden = false;
        self.put_name()
    }

    /// Gives the path to this slot for a time; None ends it.
    pub(super) fn pause(&mut self, slot: Option<usize>) -> io::Result<()> {
        self.paused = slot;
        if self.hidden { Ok(()) } else { self.put_name() }
    }

    /// Gives every name the rights that are asked for.
    pub(super) fn set_rights(&self, listener: &Listener) -> io::Result<()> {
        let mut named = self.sides.values().filter(|side| side.has_its_name());
        named.try_for_each(|side| set_rights(&side.path, listener, None).map(drop))
    }

    /// Takes the path away: clients are told at once that nobody is there, and what waits is finished.
    pub(super) fn hide(&mut self) -> io::Result<()> {
        self.hidden = true;
        if self.is_ours() { remove(&self.path) } else { Ok(()) }
    }

    /// Puts the name back where a server has removed it, as many do when they end. True where somebody else has taken
    /// it, told once.
    pub(super) fn restore(&mut self) -> io::Result<bool> {
        if self.hidden {
            return Ok(false);
        }
        self.put_sides_back();
        match fs::symlink_metadata(&self.path) {
            Ok(_) if self.is_ours() => {
                self.lost = false;
                Ok(false)
            }
            Ok(_) => Ok(!std::mem::replace(&mut self.lost, true)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.put_name().map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// True for the file that the path names now, if it is one of ours.
    pub(super) fn is_this(&self, file: &fs::Metadata) -> bool {
        let same_folder = fs::symlink_metadata(&self.path).is_ok_and(|live| live.dev() == file.dev());
        same_folder && self.sides.values().any(|side| side.inode == file.ino())
    }

    /// The one that clients find has another name by which the one beside it can be made again.
    fn put_sides_back(&self) {
        let live = fs::symlink_metadata(&self.path).map(|live| live.ino()).unwrap_or_default();
        for side in self.sides.values().filter(|side| side.inode == live && !side.has_its_name()) {
            // Whatever is in the way there is found out when the name is needed.
            let _ = fs::hard_link(&self.path, &side.path);
        }
    }

    fn is_ours(&self) -> bool {
        let Ok(live) = fs::symlink_metadata(&self.path) else { return false };
        self.sides.values().any(|side| side.inode == live.ino())
    }

    fn put_name(&self) -> io::Result<()> {
        let side = &self.sides[&self.target()];
        // rename(2) does nothing where both names are of one file already.
        if fs::symlink_metadata(&self.path).is_ok_and(|live| live.ino() == side.inode) {
            return Ok(());
        }
        let new = beside(&self.path, "new")?;
        remove(&new)?;
        fs::hard_link(&side.path, &new)?;
        fs::rename(&new, &self.path)
    }
}

impl Side {
    fn has_its_name(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if self.is_ours() {
            let _ = remove(&self.path);
        }
        for side in self.sides.values() {
            let _ = remove(&side.path);
        }
    }
}

/// A socket of zdr's own, on a path. It goes with this.
#[derive(Debug)]
pub struct OwnPath {
    path: PathBuf,
    inode: u64,
    socket: OwnedFd,
}

impl OwnPath {
    /// Binds it beside the path, and gives it the name when it is as it should be.
    pub fn bind(path: &Path, listener: &Listener) -> Result<Self, ListenError> {
        may_be_replaced(path, listener)?;
        let made = || {
            let beside = beside(path, "new")?;
            let (socket, inode) = make(&beside, listener, None)?;
            fs::rename(&beside, path)?;
            Ok(Self { path: path.to_owned(), inode, socket })
        };
        made().map_err(|source| ListenError::socket(listener, source))
    }

    /// The socket, which listens.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = remove(&self.path);
        }
    }
}

/// A socket that listens on this path, with the rights that were asked for or else those of another, and its file's inode.
fn make(path: &Path, listener: &Listener, like: Option<&fs::Metadata>) -> io::Result<(OwnedFd, u64)> {
    remove(path)?;
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let file = set_rights(path, listener, like)?;
    listen_again(listener, &socket)?;
    Ok((socket, file.ino()))
}

/// The rights that were asked for, or else those of another.
fn set_rights(path: &Path, listener: &Listener, like: Option<&fs::Metadata>) -> io::Result<fs::Metadata> {
    let mode = listener.options.mode.or(like.map(|like| like.mode() & 0o777));
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    let owner = listener.options.owner.as_deref().map(user).transpose()?.or(like.map(MetadataExt::uid));
    let group = listener.options.group.as_deref().map(group).transpose()?;
    let group = group.or(like.map(MetadataExt::gid));
    let file = fs::symlink_metadata(path)?;
    if owner.is_some_and(|owner| owner != file.uid()) || group.is_some_and(|group| group != file.gid()) {
        chown(path, owner, group)?;
    }
    Ok(file)
}

/// Finds out whether there are such an owner and such a group.
pub(super) fn know_owners(listener: &Listener) -> Result<(), ListenError> {
    let owner = listener.options.owner.as_deref().map(user).transpose();
    let group = listener.options.group.as_deref().map(group).transpose();
    owner.and(group).map(drop).map_err(|source| ListenError::socket(listener, source))
}

fn side_path(path: &Path, slot: usize) -> io::Result<PathBuf> {
    beside(path, &slot.to_string())
}

/// `/run/.app.sock.zdr-1`: in the same folder, because rename(2) and link(2) do not leave a file system.
fn beside(path: &Path, what: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path has no file name"))?;
    let beside = path.with_file_name(format!(".{}.zdr-{what}", name.to_string_lossy()));
    let longest = LONGEST_UNIX_PATH - ".".len() - ".zdr-new".len();
    match path.as_os_str().len() > longest {
        true => Err(io::Error::other(format!(
            "the path may have {longest} bytes, because zdr makes its sockets beside it as {}",
            beside.display()
        ))),
        false => Ok(beside),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A path that is free, or has the socket of somebody who is gone (connect(2): ECONNREFUSED).
fn may_be_replaced(path: &Path, listener: &Listener) -> Result<(), ListenError> {
    let address = || listener.address.to_string();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ListenError::socket(listener, error)),
        Ok(file) if !file.file_type().is_socket() => return Err(ListenError::NoSocket { address: address() }),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(stream) => Err(ListenError::InUse { address: address(), holder: holder(&stream) }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(ListenError::socket(listener, error)),
    }
}

/// Who has made the other end listen, and its program (SO_PEERCRED, unix(7)).
fn holder(stream: &impl AsFd) -> Option<(i32, String)> {
    let pid = getsockopt(stream, sockopt::PeerCredentials).ok()?.pid();
    program(pid).map(|program| (pid, program))
}

fn user(given: &str) -> io::Result<u32> {
    let found = given.parse().ok().or_else(|| User::from_name(given).ok().flatten().map(|user| user.uid.as_raw()));
    found.ok_or_else(|| io::Error::other(format!("there is no user `{given}`; see `owner=`")))
}

fn group(given: &str) -> io::Result<u32> {
    let found = given.parse().ok().or_else(|| Group::from_name(given).ok().flatten().map(|group| group.gid.as_raw()));
    found.ok_or_else(|| io::Error::other(format!("there is no group `{given}`; see `group=`")))
}

/// An abstract name: it goes with its last socket, and there can be one only.
pub(super) fn bind_abstract(name: &str, listener: &Listener) -> Result<OwnedFd, ListenError> {
    let made = || {
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        listen_again(listener, &socket)?;
        Ok(socket)
    };
    made().map_err(|source: io::Error| match refused(listener, source) {
        ListenError::InUse { address, .. } => ListenError::InUse { address, holder: holder_of_abstract(name) },
        other => other,
    })
}

/// Without waiting for one that accepts nothing and whose queue is full (EAGAIN, connect(2)).
fn holder_of_abstract(name: &str) -> Option<(i32, String)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    connect(client.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).ok()?).ok()?;
    holder(&client)
}
