//! What `/proc` tells of processes: who descends from whom, and who holds which socket.
//!
//! It never touches a process. Everything it says may be out of date when it is read: a process that is gone by then is left out, and is
//! not an error.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::CStr;
use std::fs;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::path::Path;
use std::process;
use std::thread::park_timeout;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;

use super::kernel::owner::as_we_or_owner;

/// The process and all its living descendants, root first; a zombie is not listed.
pub fn tree(root: i32) -> Vec<i32> {
    let mut seen = HashSet::from([root]);
    let mut tree: Vec<i32> = [root].into_iter().filter(|&pid| is_alive(pid)).collect();
    let mut next = 0;
    while let Some(&pid) = tree.get(next) {
        // A child can be seen twice: when a thread ends, its children become those of another (wait(2)).
        tree.extend(children(pid).filter(|&child| seen.insert(child) && is_alive(child)));
        next += 1;
    }
    tree
}

/// The living children of this process, and their descendants, that are not in `known` and were started with `marker` (`name=value`) in
/// their environment.
///
/// Such a child is an orphan of a generation: this process is the subreaper (`PR_SET_CHILD_SUBREAPER`).
pub fn orphans(known: &[i32], marker: &str) -> Vec<i32> {
    let own = children(process::id().cast_signed());
    own.filter(|child| !known.contains(child) && has_marker(*child, marker))
        .flat_map(tree)
        .filter(|pid| !known.contains(pid))
        .collect()
}

/// The living children of this process that are not in `known` and have emptied their environment of `variable`, each with
/// when it started.
pub fn unmarked_orphans(known: &[i32], variable: &str) -> Vec<(i32, u64)> {
    let own = children(process::id().cast_signed());
    own.filter(|child| !known.contains(child) && !has_variable(*child, variable))
        .filter_map(|child| Some((child, started(child)?)))
        .collect()
}

/// When a process started, in clock ticks since boot (`starttime`, proc_pid_stat(5)).
pub fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Which of these processes holds the socket with this inode, the first that is found.
pub fn holder(inode: u32, among: &[i32]) -> Option<i32> {
    among.iter().copied().find(|&pid| holds(pid, inode))
}

/// Which process of the whole system holds the socket with this inode, with its program name; `None` where `/proc` does not tell.
pub fn holder_anywhere(inode: u32) -> Option<(i32, String)> {
    let entries = fs::read_dir("/proc").ok()?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|&pid| holds(pid, inode))
        .map(|pid| (pid, program(pid).unwrap_or_default()))
}

/// Inodes of sockets, of which there may be ten thousands: the kernel chooses them, so no hash is needed against whoever would
/// choose some that collide.
pub type Inodes = HashSet<u32, BuildHasherDefault<Spread>>;

/// Spreads consecutive numbers (Knuth, The Art of Computer Programming 3, §6.4).
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Not used: inodes are written whole.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The inodes of all sockets that these processes hold.
///
/// `PermissionDenied` if not one of them let itself be read; a process that is gone holds nothing.
pub fn sockets(of: &[i32]) -> io::Result<Inodes> {
    let sockets = RefCell::new(Inodes::default());
    let mut read_one = false;
    let mut refused = None;
    for &pid in of {
        let end = as_we_or_owner(
            pid,
            |error| is_refused(*error),
            || {
                each_socket(pid, |inode| {
                    sockets.borrow_mut().insert(inode);
                    ControlFlow::Continue(())
                })
            },
        );
        match end {
            Ok(_) => read_one = true,
            Err(Errno::NOENT | Errno::SRCH) => {}
            Err(error) if is_refused(error) => refused = Some(io::ErrorKind::PermissionDenied),
            Err(error) => return Err(error.into()),
        }
    }
    match refused {
        Some(kind) if !read_one => Err(kind.into()),
        _ => Ok(sockets.into_inner()),
    }
}

/// The short name of the program that a process runs.
pub fn program(pid: i32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned();
    let name = if name.len() < COMM_LENGTH { name } else { long_name(pid, &name).unwrap_or(name) };
    // A process chooses its own name, and a name goes to the operator's terminal.
    Some(name.replace(char::is_control, "?"))
}

/// `comm` is cut off at this length (`TASK_COMM_LEN` less its end, `proc_pid_comm(5)`).
const COMM_LENGTH: usize = 15;

/// The name that `comm` has only the beginning of.
fn long_name(pid: i32, start: &str) -> Option<String> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = arguments.split(|&byte| byte == 0).next()?;
    let name = String::from_utf8_lossy(first);
    let name = Path::new(name.as_ref()).file_name()?.to_str()?;
    name.starts_with(start).then(|| name.to_owned())
}

/// The children of all threads of a process (`proc_pid_task(5)`: the file `children` needs `CONFIG_PROC_CHILDREN`).
fn children(pid: i32) -> impl Iterator<Item = i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
}

/// Whether a process runs, which a zombie does not.
fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The program's name may hold anything, but no field after it holds a bracket (proc_pid_stat(5)).
    let Some(name_end) = stat.iter().rposition(|&byte| byte == b')') else {
        return false;
    };
    let mut fields = stat[name_end + 1..].split(|&byte| byte == b' ').skip(1);
    let state = fields.next().unwrap_or_default();
    let threads = fields.nth(16).unwrap_or_default();
    // A process whose first thread has ended is shown as a zombie, too, while its other threads run.
    !matches!(state, b"Z" | b"X") || !matches!(threads, b"0" | b"1")
}

fn has_variable(pid: i32, name: &str) -> bool {
    let is_it =
        |variable: &[u8]| variable.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='));
    environment(pid).split(|&byte| byte == 0).any(is_it)
}

fn has_marker(pid: i32, marker: &str) -> bool {
    let environment = environment(pid);
    let has = |wanted: &str| environment.split(|&byte| byte == 0).any(|variable| variable == wanted.as_bytes());
    marker.split('\0').all(has)
}

/// Empty where it may not be looked at. A program that is just being executed has none either, for a moment (`env_start` is set
/// by the loader, `create_elf_tables` in fs/binfmt_elf.c): one that lives and shows none is looked at again.
fn environment(pid: i32) -> Vec<u8> {
    const AGAIN: Duration = Duration::from_micros(200);
    const LOOKS: u32 = 5;
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    for _ in 0..LOOKS {
        match as_we_or_owner(pid, refused, || fs::read(format!("/proc/{pid}/environ"))) {
            Ok(environment) if environment.is_empty() && is_alive(pid) => park_timeout(AGAIN),
            Ok(environment) => return environment,
            Err(_) => break,
        }
    }
    Vec::new()
}

fn is_refused(error: Errno) -> bool {
    matches!(error, Errno::ACCESS | Errno::PERM)
}

fn holds(pid: i32, inode: u32) -> bool {
    let search = as_we_or_owner(
        pid,
        |error| is_refused(*error),
        || each_socket(pid, |found| if found == inode { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }),
    );
    matches!(search, Ok(ControlFlow::Break(())))
}

/// Shows the inode of every socket in a process's table of descriptors, without an allocation for each: there may be ten thousands.
fn each_socket(pid: i32, mut show: impl FnMut(u32) -> ControlFlow<()>) -> rustix::io::Result<ControlFlow<()>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if entry.file_name().to_bytes().starts_with(b".") {
            continue;
        }
        match socket_inode(&directory, entry.file_name()) {
            Ok(Some(inode)) => {
                if show(inode).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            // Closed since the directory was read.
            Ok(None) | Err(Errno::NOENT) => {}
            // Without CAP_SYS_PTRACE root may list another's table, but not read it (proc(5)).
            Err(error) => return Err(error),
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The inode in a link such as `socket:[4711]`; other descriptors have none of interest.
fn socket_inode(directory: &rustix::fd::OwnedFd, descriptor: &CStr) -> rustix::io::Result<Option<u32>> {
    let mut buffer = [MaybeUninit::uninit(); 32];
    let (link, _) = readlinkat_raw(directory, descriptor, &mut buffer)?;
    let digits = link.strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
    Ok(digits.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok()))
}

#[cfg(test)]
mod tests;
