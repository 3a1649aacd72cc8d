//! clone(2) and execve(2): start a program with exactly the descriptors, signals and environment it should have.
//!
//! What happens between the two calls is in `child.rs`.
//! clone(2) has all that is needed and is allowed everywhere. Only a control group is better entered by clone3(2), which
//! default container profiles refuse: a process that moves there by itself waits for all of the system, 5 to 8 ms here.

mod child;

use std::ffi::{CString, OsStr};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::Resource;
use nix::unistd::pipe2;

use self::child::Prepared;
use super::keeper::Keeper;
use super::pidfd::PidFd;
use super::seccomp::Filter;
use crate::config::Limit;

/// A program to be started.
#[derive(Debug)]
pub struct Program<'a> {
    /// Files to execute, the first that exists; relative ones are looked up in `directory`.
    pub candidates: Vec<CString>,
    /// Its arguments, the name it is called by first.
    pub arguments: Vec<CString>,
    /// Its environment, without LISTEN_PID.
    pub environment: Vec<CString>,
    /// Its working directory by name, or None for ours.
    pub directory: Option<CString>,
    /// The same held open: it runs there, wherever the name leads by then.
    pub held_directory: Option<BorrowedFd<'a>>,
    /// What is executed if none of the candidates is there: a file held open, whatever it is called by now.
    pub held_executable: Option<BorrowedFd<'a>>,
    /// The descriptors it gets, from number 3 on; everything else is closed but 0, 1 and 2.
    pub descriptors: Vec<BorrowedFd<'a>>,
    /// Its standard output and its standard error, or None for ours.
    pub outlets: [Option<BorrowedFd<'a>>; 2],
    /// The directory of the control group that it is put into; where that cannot be done it stays in ours.
    pub control_group: Option<BorrowedFd<'a>>,
    /// Its resource limits, in this order.
    pub limits: Vec<(Resource, Limit)>,
    /// Its mask of permissions (umask(2)), or None for ours.
    pub umask: Option<u32>,
    /// Who it is, or None for who we are.
    pub ids: Option<&'a Ids>,
    /// Nothing that it executes gives it rights (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// Adds LISTEN_PID with its own process id, which only it can know (sd_listen_fds(3)).
    pub listen_pid: bool,
    /// Notifies us of the calls by which it and its processes make listeners.
    pub capture: Option<&'a Keeper>,
}

/// A user and groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
}

/// A program that was executed.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id, which is also its process group.
    pub pid: i32,
    /// The process itself.
    pub pidfd: PidFd,
    /// Which of the candidates it is, from 0 on; their count if it is the file held open; None if that was never told.
    pub executed: Option<usize>,
    /// Where its calls are notified, if that was asked for.
    pub notify: Option<OwnedFd>,
}

/// What could not be done on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Making the process.
    Clone,
    /// Making its process group.
    Group,
    /// Placing its descriptors.
    Descriptors,
    /// Setting a resource limit.
    Limits,
    /// Having its calls notified.
    Capture,
    /// Taking its groups.
    Groups,
    /// Becoming its user.
    User,
    /// Entering its working directory.
    Directory,
    /// Giving up new privileges.
    Privileges,
    /// Executing the file.
    Execute,
}

impl Step {
    /// Those of the child, which tells them as numbers.
    const OF_THE_CHILD: [Self; 9] = [
        Self::Group,
        Self::Descriptors,
        Self::Limits,
        Self::Capture,
        Self::Groups,
        Self::User,
        Self::Directory,
        Self::Privileges,
        Self::Execute,
    ];
}

/// Why a program was not executed.
#[derive(Debug)]
pub struct SpawnError {
    /// Where it failed.
    pub step: Step,
    /// How.
    pub source: io::Error,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Clone => "cannot make a process",
            Step::Group => "cannot make a process group",
            Step::Descriptors => "cannot place its sockets",
            Step::Capture => return f.write_str(&no_capture(&self.source)),
            Step::Limits => "cannot set its resource limits",
            Step::Groups => "cannot take its groups",
            Step::User => "cannot become its user",
            Step::Directory => "cannot enter its working directory",
            Step::Privileges => "cannot give up new privileges",
            Step::Execute => "cannot execute it",
        };
        let why = match self.source.raw_os_error() {
            Some(libc::ENOENT) => "no such file or directory".to_owned(),
            Some(libc::EACCES) => "permission denied".to_owned(),
            // The system call that makes a user exceed it is execve, not the one that changes to the user (execve(2)).
            Some(libc::EAGAIN) if self.step == Step::Execute => {
                "its user has more processes than nproc allows".to_owned()
            }
            Some(libc::ENOEXEC) => "not executable: exec format error".to_owned(),
            _ => self.source.to_string(),
        };
        write!(f, "{step}: {why}")
    }
}

fn no_capture(source: &io::Error) -> String {
    let why = match source.raw_os_error() {
        Some(libc::EBUSY) => "another program watches its system calls already".to_owned(),
        Some(libc::ENOSYS | libc::EINVAL) => "this kernel has no seccomp notifications".to_owned(),
        Some(libc::EACCES | libc::EPERM) => "this system does not allow it".to_owned(),
        _ => source.to_string(),
    };
    format!(
        "cannot take over the sockets that it binds by itself: {why}; \
         say where to listen with --listen, and `--capture never`"
    )
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Starts the program and returns when it was executed, or with the step that failed.
pub fn spawn(program: &Program<'_>) -> Result<Spawned, SpawnError> {
    let prepare = |source: io::Error| SpawnError { step: Step::Descriptors, source };
    let first_free = 3 + i32::try_from(program.descriptors.len()).map_err(|error| prepare(io::Error::other(error)))?;
    // Copies beyond the range that is filled, so that the order of filling does not matter.
    let lent =
        program.descriptors.iter().map(|fd| copy(*fd, first_free)).collect::<io::Result<Vec<_>>>().map_err(prepare)?;
    let copied = |fd: Option<BorrowedFd<'_>>| fd.map(|fd| copy(fd, first_free)).transpose().map_err(prepare);
    let [output, error] = program.outlets.map(copied);
    let outlets = [output?, error?];
    let held = [copied(program.held_directory)?, copied(program.held_executable)?];
    let (report, told) = report_pipe(first_free).map_err(prepare)?;
    let handover = program.capture.map(|_| handover(first_free)).transpose().map_err(prepare)?;
    let hand = handover.as_ref().map(|(_, theirs)| theirs.as_raw_fd());
    let mut prepared = Prepared::new(program, &lent, &outlets, &held, told.as_raw_fd(), hand);

    let mut pidfd: RawFd = -1;
    // SAFETY: in the child nothing is done but what follows here.
    let mut pid = program.control_group.map_or(-1, |group| unsafe { clone_into(group, &mut pidfd) });
    prepared.is_in_group = pid >= 0;
    if pid < 0 {
        // SAFETY: as above.
        pid = unsafe { clone(&mut pidfd) };
    }
    if pid == 0 {
        // SAFETY: this is the child of one of these calls, and `prepared` was made before it.
        unsafe { prepared.become_the_program() }
    }
    let failed = |source| SpawnError { step: Step::Clone, source };
    let pid = i32::try_from(pid).map_err(|error| failed(io::Error::other(error)))?;
    if pid < 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    drop(told);
    match read_report(report) {
        Ok(executed) => {
            // It was sent before the program was executed, so it is there.
            let notify = handover.map(|(ours, _)| Filter::sent(&ours)).transpose();
            let notify = notify.map_err(|source| SpawnError { step: Step::Capture, source })?;
            Ok(Spawned { pid, pidfd: PidFd::from_owned(pidfd), executed, notify })
        }
        Err(error) => {
            // It has told us and ends now; nobody else knows of it, so it is waited for here.
            let id = nix::sys::wait::Id::PIDFd(pidfd.as_fd());
            let _ = nix::sys::wait::waitid(id, nix::sys::wait::WaitPidFlag::WEXITED);
            Err(error)
        }
    }
}

/// The child's process number, zero in the child, negative where there is none.
///
/// # Safety
/// The child may only use what `child.rs` may.
unsafe fn clone(pidfd: &mut RawFd) -> libc::c_long {
    let flags = libc::c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD);
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of everything, on the same stack. The kernel
    // writes the descriptor to `pidfd` (clone(2), CLONE_PIDFD); the unused arguments are zero on every architecture.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut *pidfd, 0, 0) }
}

/// The same, with the child in a control group from its beginning (clone3(2), CLONE_INTO_CGROUP).
///
/// # Safety
/// As `clone`.
unsafe fn clone_into(group: BorrowedFd<'_>, pidfd: &mut RawFd) -> libc::c_long {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    let arguments = CloneArguments {
        flags: CLONE_INTO_CGROUP | u64::from(libc::CLONE_PIDFD.cast_unsigned()),
        pidfd: (&raw mut *pidfd).expose_provenance() as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        cgroup: u64::from(group.as_raw_fd().cast_unsigned()),
        ..CloneArguments::default()
    };
    // SAFETY: as above; the structure is laid out as the kernel's and lives as long as the call.
    unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) }
}

/// `struct clone_args` of linux/sched.h.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

fn copy(fd: BorrowedFd<'_>, at_least: RawFd) -> io::Result<OwnedFd> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(at_least))?;
    // SAFETY: fcntl has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The reading end, and the only writing end: end of file is the good news.
fn report_pipe(at_least: RawFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let (report, told) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((report, copy(told.as_fd(), at_least)?))
}

/// The way that a descriptor takes from the child to us: our end and the child's.
fn handover(at_least: RawFd) -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((ours, copy(theirs.as_fd(), at_least)?))
}

/// The pipe closes at exec; the last that came before is which candidate was tried, or a step and an error number.
fn read_report(report: OwnedFd) -> Result<Option<usize>, SpawnError> {
    let mut told = Vec::new();
    let read = std::fs::File::from(report).read_to_end(&mut told);
    let (messages, _) = told.as_chunks::<8>();
    // One that was killed on the way is waited for like any other.
    let Some([what, _, _, _, number @ ..]) = read.ok().and(messages.last()) else { return Ok(None) };
    match Step::OF_THE_CHILD.into_iter().find(|step| *step as u8 == *what) {
        Some(step) => Err(SpawnError { step, source: io::Error::from_raw_os_error(i32::from_ne_bytes(*number)) }),
        None => Ok(Some(u32::from_ne_bytes(*number) as usize)),
    }
}

/// The files that may be meant by a program's name: itself if it has a slash, else one per directory of PATH.
pub fn candidates(name: &OsStr, path: &OsStr) -> Vec<CString> {
    if name.as_bytes().contains(&b'/') {
        return CString::new(name.as_bytes()).into_iter().collect();
    }
    std::env::split_paths(path)
        .filter_map(|directory| CString::new(directory.join(name).as_os_str().as_bytes()).ok())
        .collect()
}
