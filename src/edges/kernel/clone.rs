//! clone(2) and execve(2): start a program with exactly the descriptors, signals and environment it should have.
//!
//! Between the two calls nothing allocates, locks or runs code of others, so it does not matter what other threads do.
//! clone3(2) would do as well, but default container profiles answer it with ENOSYS; clone(2) has all that is needed.

use std::ffi::{CString, OsStr};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::pidfd::PidFd;

/// A program to be started.
#[derive(Debug)]
pub struct Program<'a> {
    /// Files to execute, the first that exists; relative ones are looked up in `directory`.
    pub candidates: Vec<CString>,
    /// Its arguments, the name it is called by first.
    pub arguments: Vec<CString>,
    /// Its environment, without LISTEN_PID.
    pub environment: Vec<CString>,
    /// Its working directory, or None for ours.
    pub directory: Option<CString>,
    /// The descriptors it gets, from number 3 on; everything else is closed but 0, 1 and 2.
    pub descriptors: Vec<BorrowedFd<'a>>,
    /// Adds LISTEN_PID with its own process id, which only it can know (sd_listen_fds(3)).
    pub listen_pid: bool,
}

/// A program that was executed.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id, which is also its process group.
    pub pid: i32,
    /// The process itself.
    pub pidfd: PidFd,
}

/// What could not be done on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the process.
    Clone,
    /// Making its process group.
    Group,
    /// Placing its descriptors.
    Descriptors,
    /// Entering its working directory.
    Directory,
    /// Executing the file.
    Execute,
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
            Step::Directory => "cannot enter its working directory",
            Step::Execute => "cannot execute it",
        };
        let why = match self.source.raw_os_error() {
            Some(libc::ENOENT) => "no such file or directory".to_owned(),
            Some(libc::EACCES) => "permission denied".to_owned(),
            Some(libc::ENOEXEC) => "not executable: exec format error".to_owned(),
            _ => self.source.to_string(),
        };
        write!(f, "{step}: {why}")
    }
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
    let (report, told) = report_pipe(first_free).map_err(prepare)?;
    let mut prepared = Prepared::new(program, &lent, told.as_raw_fd());

    let mut pidfd: RawFd = -1;
    let flags = libc::c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD);
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of everything, on the same stack. The kernel
    // writes the descriptor to `pidfd` (clone(2), CLONE_PIDFD); the unused arguments are zero on every architecture.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    if pid == 0 {
        // SAFETY: this is the child of the fork above, and `prepared` was made before it.
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
        None => Ok(Spawned { pid, pidfd: PidFd::from_owned(pidfd) }),
        Some(error) => {
            // It has told us and ends now; nobody else knows of it, so it is waited for here.
            let id = nix::sys::wait::Id::PIDFd(pidfd.as_fd());
            let _ = nix::sys::wait::waitid(id, nix::sys::wait::WaitPidFlag::WEXITED);
            Err(error)
        }
    }
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

/// The pipe closes at exec; what comes before that is a step and an error number.
fn read_report(report: OwnedFd) -> Option<SpawnError> {
    let mut told = Vec::new();
    std::fs::File::from(report).take(8).read_to_end(&mut told).ok()?;
    let [step, _, _, _, errno @ ..] = <[u8; 8]>::try_from(told).ok()?;
    let step = match step {
        1 => Step::Group,
        2 => Step::Descriptors,
        3 => Step::Directory,
        _ => Step::Execute,
    };
    Some(SpawnError { step, source: io::Error::from_raw_os_error(i32::from_ne_bytes(errno)) })
}

/// Everything the child needs, laid out before it exists.
struct Prepared<'a> {
    candidates: Vec<*const libc::c_char>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    directory: *const libc::c_char,
    lent: Vec<RawFd>,
    told: RawFd,
    /// `LISTEN_PID=` and room for a number; the environment points here.
    listen_pid: Option<Box<[u8; 24]>>,
    _program: &'a Program<'a>,
}

const LISTEN_PID: &[u8] = b"LISTEN_PID=";

impl<'a> Prepared<'a> {
    fn new(program: &'a Program<'a>, lent: &[OwnedFd], told: RawFd) -> Self {
        let pointers = |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).collect::<Vec<_>>();
        let terminated = |strings: &[CString]| [pointers(strings), vec![ptr::null()]].concat();
        let mut listen_pid = program.listen_pid.then(|| Box::new([0; 24]));
        let mut environment = pointers(&program.environment);
        if let Some(buffer) = &mut listen_pid {
            buffer[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
            environment.push(buffer.as_ptr().cast());
        }
        environment.push(ptr::null());
        Self {
            candidates: pointers(&program.candidates),
            arguments: terminated(&program.arguments),
            environment,
            directory: program.directory.as_ref().map_or(ptr::null(), |directory| directory.as_ptr()),
            lent: lent.iter().map(AsRawFd::as_raw_fd).collect(),
            told,
            listen_pid,
            _program: program,
        }
    }

    /// Never returns: executes the program, or tells which step failed and exits with 127.
    ///
    /// # Safety
    /// Only in a child that nobody else knows of. Uses nothing but system calls and memory that is already there.
    unsafe fn become_the_program(&mut self) -> ! {
        // SAFETY: forwarded from the caller.
        let step = unsafe { self.try_to_become_the_program() };
        // SAFETY: errno is this thread's own; the buffer is on the stack; _exit runs no handlers of the parent.
        unsafe {
            let errno = (*libc::__errno_location()).to_ne_bytes();
            let message = [step, 0, 0, 0, errno[0], errno[1], errno[2], errno[3]];
            libc::write(self.told, message.as_ptr().cast(), message.len());
            libc::_exit(127)
        }
    }

    /// Returns only with the number of the step that failed.
    ///
    /// # Safety
    /// As `become_the_program`.
    unsafe fn try_to_become_the_program(&mut self) -> u8 {
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        /// The kernel's signal set has 64 bits (`_NSIG` in asm/signal.h).
        const KERNEL_SIGSET: libc::size_t = 8;
        // SAFETY: raw system calls on numbers, on descriptors that the parent prepared and on strings that end in zero
        // and live in `self`. The kernel's sigaction has no more than four words on any architecture.
        unsafe {
            // Handlers go at exec, but what was ignored stays ignored (execve(2)): Rust ignores SIGPIPE, and posix_spawn of
            // the GNU C library signals 32 and 33, which its sigaction would not touch. Zero all over is SIG_DFL.
            let default = [0_u64; 4];
            for signal in 1..=64 {
                libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), 0, KERNEL_SIGSET);
            }
            if libc::syscall(libc::SYS_setpgid, 0, 0) < 0 {
                return 1;
            }
            let mut number: RawFd = 3;
            for fd in &self.lent {
                if libc::syscall(libc::SYS_dup3, *fd, number, 0) < 0 {
                    return 2;
                }
                number += 1;
            }
            if libc::syscall(libc::SYS_close_range, number, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) < 0 {
                return 2;
            }
            if !self.directory.is_null() && libc::syscall(libc::SYS_chdir, self.directory) < 0 {
                return 3;
            }
            if let Some(buffer) = &mut self.listen_pid {
                write_number(&mut buffer[LISTEN_PID.len()..], libc::syscall(libc::SYS_getpid));
            }
            let nothing: libc::sigset_t = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_SETMASK, &raw const nothing, ptr::null_mut());
            self.execute()
        }
    }

    /// As execvp(3): tries each, and permission denied is remembered over not found.
    ///
    /// # Safety
    /// As `become_the_program`.
    unsafe fn execute(&self) -> u8 {
        // SAFETY: the arrays end in null and the strings live in `self`; errno is this thread's own.
        unsafe {
            let mut denied = false;
            for candidate in &self.candidates {
                libc::syscall(libc::SYS_execve, *candidate, self.arguments.as_ptr(), self.environment.as_ptr());
                match *libc::__errno_location() {
                    libc::EACCES => denied = true,
                    libc::ENOENT | libc::ENOTDIR => {}
                    _ => return 4,
                }
            }
            *libc::__errno_location() = if denied { libc::EACCES } else { libc::ENOENT };
            4
        }
    }
}

fn write_number(room: &mut [u8], mut number: libc::c_long) {
    let mut digits = 1;
    let mut rest = number / 10;
    while rest > 0 {
        digits += 1;
        rest /= 10;
    }
    for place in room.iter_mut().take(digits).rev() {
        *place = b'0' + (number % 10).to_le_bytes()[0];
        number /= 10;
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
