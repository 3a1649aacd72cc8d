//! Answering the system calls of servers that bind by themselves (seccomp user notification).
//!
//! Reads what a process asks for and carries out what the listeners answer. Whatever it cannot read or does not know goes
//! on as if nobody had looked.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::Edges;
use super::kernel::owner::as_we_or_owner;
use super::kernel::pidfd::PidFd;
use super::kernel::readable::Readable;
use super::kernel::seccomp::{Call, Notification, Notifier, read_memory, read_string};
use super::listeners::{Answer, Binding, ListenError};
use super::notice::{Notice, Owner};
use super::processes;
use super::task::Task;
use super::words::Words;
use crate::address::Address;
use crate::config::Capture;
use crate::supervisor::{Event, Instance};

/// The watch over the system calls of one generation.
#[derive(Debug)]
pub(super) struct Watch {
    notifier: Notifier,
    _task: Task,
}

impl Watch {
    pub(super) fn start(notifier: Notifier, instance: Instance, owner: Owner) -> io::Result<Self> {
        let readable = Readable::new(notifier.as_fd().try_clone_to_owned()?)?;
        let task = Task::start(tell(readable, instance, owner));
        Ok(Self { notifier, _task: task })
    }
}

/// Tells that something waits, and waits until it was taken.
async fn tell(readable: Readable, instance: Instance, owner: Owner) {
    while readable.read(something_waits).await.is_ok() {
        let (done, taken) = oneshot::channel();
        let _ = owner.send(Notice::Calls { instance, done });
        if taken.await.is_err() {
            return;
        }
    }
}

/// Also true when nothing will come any more.
fn something_waits(notify: &OwnedFd) -> io::Result<()> {
    let mut asked = [PollFd::new(notify.as_fd(), PollFlags::POLLIN)];
    match poll(&mut asked, PollTimeout::ZERO)? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

impl Edges {
    /// Answers every system call that waits.
    pub(super) fn answer_calls(&mut self, instance: Instance) {
        while let Some(child) = self.children.get_mut(&instance) {
            let Some(watch) = &child.capture else { return };
            match watch.notifier.receive() {
                Ok(Some(call)) => {
                    self.answer_call(instance, &call);
                    let said = self.children.get_mut(&instance).and_then(|child| child.said_too_early.take());
                    if let Some(pid) = said {
                        self.said(instance, pid, Words::of_ready(true));
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    // Nobody is left whose calls could come.
                    if error.kind() != io::ErrorKind::UnexpectedEof {
                        warn!(%instance, %error, "cannot read what the server asks the kernel for");
                    }
                    child.capture = None;
                    return;
                }
            }
        }
    }

    fn answer_call(&mut self, instance: Instance, asked: &Notification) {
        let generation = instance.generation;
        debug!(%instance, ?asked);
        let everything = self.settings_of(generation).config.capture == Capture::Everything;
        let Some(child) = self.children.get(&instance) else { return };
        let Some(watch) = &child.capture else { return };
        let root = child.pid;
        let held = |inode: u64| {
            u32::try_from(inode).is_ok_and(|inode| processes::holder(inode, &processes::tree(root)).is_some())
        };
        let mut trouble = None;
        let (answer, place) = match asked.call {
            Call::Bind { fd, address, length } => match read_binding(asked.thread, fd, address, length) {
                // The number may have gone to another while it was looked up.
                Ok(Some(mut binding)) if watch.notifier.is_valid(asked) => {
                    binding.unprivileged &= !everything;
                    let close_on_exec = binding.close_on_exec;
                    let unseen = binding.socket.is_none().then(|| binding.address.clone());
                    let answer = self.listeners.bind_for(instance, &binding, held);
                    if let (Ok(Answer::GoOn), Some(address)) = (&answer, unseen) {
                        trouble = Some(no_right(&address));
                    }
                    (answer, Some((fd, close_on_exec)))
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    trouble = Some(BLIND.to_owned());
                    (Ok(Answer::GoOn), None)
                }
                _ => (Ok(Answer::GoOn), None),
            },
            Call::Listen { fd, backlog } => match copy(asked.thread, fd) {
                Ok(socket) => {
                    let path = |bound: &Path| seen_from_here(asked.thread, bound);
                    let flags = flags(asked.thread, fd).unwrap_or_default();
                    (self.listeners.listen_for(instance, &socket, backlog, path), Some((fd, flags.close_on_exec)))
                }
                Err(_) => (Ok(Answer::GoOn), None),
            },
            Call::Unlink { directory, path } => {
                // Where no name is kept, which is most often, the server need not wait until its path was read.
                let keeps_any = self.listeners.files().next().is_some();
                let named = if keeps_any { unlinked(asked.thread, directory, path) } else { None };
                let kept = named.and_then(|path| fs::symlink_metadata(path).ok());
                let ours = kept.is_some_and(|file| self.listeners.keeps(&file));
                (Ok(if ours { Answer::Done(Ok(())) } else { Answer::GoOn }), None)
            }
        };
        let sent = match answer {
            Ok(Answer::GoOn) => watch.notifier.go_on(asked),
            Ok(Answer::Done(result)) => watch.notifier.answer(asked, result),
            Ok(Answer::Place(socket)) => match place {
                Some((fd, close_on_exec)) => watch
                    .notifier
                    .place(asked, socket, fd, close_on_exec)
                    .and_then(|()| watch.notifier.answer(asked, Ok(()))),
                None => watch.notifier.go_on(asked),
            },
            Err(error) => {
                trouble = Some(said(&error));
                watch.notifier.go_on(asked)
            }
        };
        match sent {
            // The process was killed or interrupted meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => warn!(%generation, %error, "cannot answer what the server asked the kernel for"),
            Ok(()) => {}
        }
        if let Some(trouble) = trouble {
            self.cannot_capture(instance, trouble);
        }
        super::failed("watch the names of Unix sockets", self.names.add(self.listeners.files()));
    }

    /// The probe of the generation has no better answer than this as long as it listens nowhere.
    fn cannot_capture(&mut self, instance: Instance, why: String) {
        warn!(generation = %instance.generation, "{why}");
        if let Some(child) = self.children.get_mut(&instance) {
            child.trouble = Some(why.clone());
        }
        self.inbox.push_back(Event::NotReady { instance, answer: why });
    }
}

fn said(error: &ListenError) -> String {
    format!("the server binds by itself: {error}")
}

fn no_right(address: &Address) -> String {
    format!(
        "the server binds {address} by itself, and zdr may not take that over here, where it has no right to trace \
         processes (ptrace(2)); say `--listen {address} --capture always`, or give zdr CAP_SYS_PTRACE"
    )
}

/// Where it cannot even be read what the server binds.
const BLIND: &str = "the server binds an address by itself, and zdr may not see which, where it has no right to trace \
                     processes (ptrace(2)) and the server has changed its user; give zdr CAP_SYS_PTRACE, or say who \
                     the server is with `--user`";

/// What it binds, to which address; None for what zdr does not take over: other families, and ports that the kernel
/// chooses.
fn read_binding(thread: i32, fd: i32, at: u64, length: u32) -> io::Result<Option<Binding>> {
    let mut buffer = [0; 128];
    let length = usize::try_from(length).map_err(io::Error::other)?.min(buffer.len());
    let length = seen(thread, || read_memory(thread, at, &mut buffer[..length]))?;
    let Some(address) = read_address(thread, &buffer[..length]) else { return Ok(None) };
    let flags = flags(thread, fd)?;
    Ok(Some(Binding {
        address,
        socket: copy(thread, fd).ok(),
        nonblocking: flags.nonblocking,
        close_on_exec: flags.close_on_exec,
        unprivileged: !may_bind_low_ports(thread),
    }))
}

/// Root in a container may not trace a server of another user, but that user may.
fn seen<T>(thread: i32, look: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let look = RefCell::new(look);
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    as_we_or_owner(thread, refused, || look.borrow_mut()())
}

/// `struct sockaddr_in`, `sockaddr_in6` or `sockaddr_un` (ip(7), ipv6(7), unix(7)). The protocol cannot be seen here.
fn read_address(thread: i32, bytes: &[u8]) -> Option<Address> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let port = || Some(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)).filter(|port| *port != 0);
    match family {
        libc::AF_INET => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(Address::Tcp(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(ip), port()?))))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let scope = bytes.get(24..28).and_then(|scope| Some(u32::from_ne_bytes(scope.try_into().ok()?)));
            let address = SocketAddrV6::new(Ipv6Addr::from(ip), port()?, 0, scope.unwrap_or_default());
            Some(Address::Tcp(SocketAddr::V6(address)))
        }
        libc::AF_UNIX => match bytes.get(2..)? {
            [0, name @ ..] if !name.is_empty() => Some(Address::Abstract(String::from_utf8_lossy(name).into_owned())),
            [] | [0] => None,
            path => {
                let path = path.split(|byte| *byte == 0).next()?;
                seen_from_here(thread, Path::new(OsStr::from_bytes(path))).map(Address::Unix)
            }
        },
        _ => None,
    }
}

/// A path of that thread as zdr would write it; None where it lives in another root.
fn seen_from_here(thread: i32, path: &Path) -> Option<PathBuf> {
    let root = seen(thread, || fs::read_link(format!("/proc/{thread}/root"))).ok()?;
    let directory = seen(thread, || fs::read_link(format!("/proc/{thread}/cwd"))).ok()?;
    (root == Path::new("/")).then(|| directory.join(path))
}

/// PATH_MAX (limits.h).
const LONGEST_PATH: usize = 4096;

/// The file that is to be removed (unlinkat(2)).
fn unlinked(thread: i32, directory: i32, path: u64) -> Option<PathBuf> {
    let path =
        PathBuf::from(OsString::from_vec(seen(thread, || read_string(thread, path, LONGEST_PATH)).ok()?.into_bytes()));
    if path.is_absolute() || directory == libc::AT_FDCWD {
        return seen_from_here(thread, &path);
    }
    Some(seen(thread, || fs::read_link(format!("/proc/{thread}/fd/{directory}"))).ok()?.join(path))
}

fn copy(thread: i32, fd: i32) -> io::Result<OwnedFd> {
    PidFd::of_thread(thread)?.copy_of(fd)
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    nonblocking: bool,
    close_on_exec: bool,
}

/// The `flags:` line (proc_pid_fdinfo(5)), which needs no right to trace the process.
fn flags(thread: i32, fd: i32) -> io::Result<Flags> {
    let info = seen(thread, || fs::read_to_string(format!("/proc/{thread}/fdinfo/{fd}")))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok()).unwrap_or_default();
    Ok(Flags { nonblocking: flags & libc::O_NONBLOCK != 0, close_on_exec: flags & libc::O_CLOEXEC != 0 })
}

/// CAP_NET_BIND_SERVICE in the line `CapEff:` (proc_pid_status(5), capabilities(7)).
fn may_bind_low_ports(thread: i32) -> bool {
    const CAP_NET_BIND_SERVICE: u32 = 10;
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = line.and_then(|rights| u64::from_str_radix(rights.trim(), 16).ok()).unwrap_or_default();
    rights & (1 << CAP_NET_BIND_SERVICE) != 0
}
