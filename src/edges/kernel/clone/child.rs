//! What the child does between clone(2) and execve(2): it becomes the program.
//!
//! Nothing here allocates, locks or runs code of others, so it does not matter what other threads do. Only raw system
//! calls: those of the C library that change an identity would have the threads of the parent do the same.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use super::super::keeper::Keeper;
use super::super::seccomp::Filter;
use super::{Program, Step};

/// Everything the child needs, laid out before it exists.
pub(super) struct Prepared<'a> {
    candidates: Vec<*const libc::c_char>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    directory: *const libc::c_char,
    held_directory: Option<RawFd>,
    held_executable: Option<RawFd>,
    control_group: Option<RawFd>,
    /// It was made in its control group and needs not move there.
    pub(super) is_in_group: bool,
    lent: Vec<RawFd>,
    outlets: [Option<RawFd>; 2],
    /// Numbers of resources with the soft and the hard limit, as `struct rlimit64` has them.
    limits: Vec<(libc::c_long, [u64; 2])>,
    told: RawFd,
    /// `LISTEN_PID=` and room for a number; the environment points here.
    listen_pid: Option<Box<[u8; 24]>>,
    /// The filter, and the socket on which its descriptor goes to our parent.
    capture: Option<(Filter, RawFd)>,
    program: &'a Program<'a>,
}

// Where there are two, the older ones have room for small numbers only (setresuid(2)).
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setgroups as SYS_SETGROUPS, SYS_setresgid as SYS_SETRESGID, SYS_setresuid as SYS_SETRESUID};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{SYS_setgroups32 as SYS_SETGROUPS, SYS_setresgid32 as SYS_SETRESGID, SYS_setresuid32 as SYS_SETRESUID};

const LISTEN_PID: &[u8] = b"LISTEN_PID=";

/// Told in the place of a step: the candidate of this number is tried.
const TRIES: u8 = u8::MAX;

impl<'a> Prepared<'a> {
    pub(super) fn new(
        program: &'a Program<'a>,
        lent: &[OwnedFd],
        outlets: &[Option<OwnedFd>; 2],
        held: &[Option<OwnedFd>; 2],
        told: RawFd,
        handover: Option<RawFd>,
    ) -> Self {
        let pointers = |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).collect::<Vec<_>>();
        let terminated = |strings: &[CString]| [pointers(strings), vec![ptr::null()]].concat();
        let mut listen_pid = program.listen_pid.then(|| Box::new([0; 24]));
        let mut environment = pointers(&program.environment);
        if let Some(buffer) = &mut listen_pid {
            buffer[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
            environment.push(buffer.as_ptr().cast());
        }
        environment.push(ptr::null());
        let numbers = |fds: &[Option<OwnedFd>; 2]| fds.each_ref().map(|fd| fd.as_ref().map(AsRawFd::as_raw_fd));
        let [held_directory, held_executable] = numbers(held);
        Self {
            candidates: pointers(&program.candidates),
            arguments: terminated(&program.arguments),
            environment,
            directory: program.directory.as_ref().map_or(ptr::null(), |directory| directory.as_ptr()),
            control_group: program.control_group.map(|group| group.as_raw_fd()),
            is_in_group: false,
            limits: program
                .limits
                .iter()
                .map(|(kind, limit)| (*kind as libc::c_long, [limit.soft, limit.hard]))
                .collect(),
            lent: lent.iter().map(AsRawFd::as_raw_fd).collect(),
            held_directory,
            held_executable,
            outlets: numbers(outlets),
            told,
            listen_pid,
            capture: program.capture.map(Keeper::filter).zip(handover),
            program,
        }
    }

    /// Never returns: executes the program, or tells which step failed and exits with 127.
    ///
    /// # Safety
    /// Only in a child that nobody else knows of. Uses nothing but system calls and memory that is already there.
    pub(super) unsafe fn become_the_program(&mut self) -> ! {
        // SAFETY: forwarded from the caller.
        let step = unsafe { self.try_to_become_the_program() };
        // SAFETY: errno is this thread's own; _exit runs no handlers of the parent.
        unsafe {
            self.tell(step as u8, (*libc::__errno_location()).to_ne_bytes());
            libc::_exit(127)
        }
    }

    /// Tells the parent what comes of it: a step that failed with its error number, or what is tried.
    ///
    /// # Safety
    /// As `become_the_program`.
    unsafe fn tell(&self, what: u8, number: [u8; 4]) {
        let message = [what, 0, 0, 0, number[0], number[1], number[2], number[3]];
        // SAFETY: the buffer is on the stack; the descriptor is the pipe that the parent reads.
        unsafe { libc::write(self.told, message.as_ptr().cast(), message.len()) };
    }

    /// Returns only with the step that failed.
    ///
    /// # Safety
    /// As `become_the_program`.
    unsafe fn try_to_become_the_program(&mut self) -> Step {
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
                return Step::Group;
            }
            if let Some(group) = self.control_group.filter(|_| !self.is_in_group) {
                // Zero is whoever writes it (cgroups(7)). Who is not let in is still found as a descendant.
                let flags = libc::O_WRONLY | libc::O_CLOEXEC;
                let list = libc::syscall(libc::SYS_openat, group, c"cgroup.procs".as_ptr(), flags, 0);
                libc::syscall(libc::SYS_write, list, c"0".as_ptr(), 1);
            }
            for (fd, number) in self.outlets.iter().zip([libc::STDOUT_FILENO, libc::STDERR_FILENO]) {
                if fd.is_some_and(|fd| libc::syscall(libc::SYS_dup3, fd, number, 0) < 0) {
                    return Step::Descriptors;
                }
            }
            let mut number: RawFd = 3;
            for fd in &self.lent {
                if libc::syscall(libc::SYS_dup3, *fd, number, 0) < 0 {
                    return Step::Descriptors;
                }
                number += 1;
            }
            if libc::syscall(libc::SYS_close_range, number, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) < 0 {
                return Step::Descriptors;
            }
            for (kind, limits) in &self.limits {
                let old: *mut libc::c_void = ptr::null_mut();
                if libc::syscall(libc::SYS_prlimit64, 0, *kind, limits.as_ptr(), old) < 0 {
                    return Step::Limits;
                }
            }
            if let Some(mask) = self.program.umask {
                libc::syscall(libc::SYS_umask, mask);
            }
            // Before the user changes: without CAP_SYS_ADMIN it would cost no_new_privs.
            if let Some((filter, handover)) = &mut self.capture
                && let Err(errno) = filter.enter(*handover)
            {
                *libc::__errno_location() = errno;
                return Step::Capture;
            }
            if let Some(ids) = self.program.ids {
                // Groups first: the user may have no right to change them.
                if libc::syscall(SYS_SETGROUPS, ids.groups.len(), ids.groups.as_ptr()) < 0
                    || libc::syscall(SYS_SETRESGID, ids.gid, ids.gid, ids.gid) < 0
                {
                    return Step::Groups;
                }
                if libc::syscall(SYS_SETRESUID, ids.uid, ids.uid, ids.uid) < 0 {
                    return Step::User;
                }
            }
            // As who it is now, so that it is never led where it could not go by itself.
            if !self.directory.is_null() && libc::syscall(libc::SYS_chdir, self.directory) < 0 {
                return Step::Directory;
            }
            if self.held_directory.is_some_and(|fd| libc::syscall(libc::SYS_fchdir, fd) < 0) {
                return Step::Directory;
            }
            if self.program.no_new_privileges
                && libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
            {
                return Step::Privileges;
            }
            if let Some(buffer) = &mut self.listen_pid {
                write_number(&mut buffer[LISTEN_PID.len()..], libc::syscall(libc::SYS_getpid));
            }
            let nothing: libc::sigset_t = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_SETMASK, &raw const nothing, ptr::null_mut());
            self.execute()
        }
    }

    /// As execvp(3): tries each, and permission denied is remembered over not found. What is held open comes last.
    ///
    /// # Safety
    /// As `become_the_program`.
    unsafe fn execute(&self) -> Step {
        let (arguments, environment) = (self.arguments.as_ptr(), self.environment.as_ptr());
        let mut tried: u32 = 0;
        // SAFETY: the arrays end in null and the strings live in `self`; errno is this thread's own.
        unsafe {
            let mut denied = false;
            for candidate in &self.candidates {
                self.tell(TRIES, tried.to_ne_bytes());
                tried += 1;
                libc::syscall(libc::SYS_execve, *candidate, arguments, environment);
                match *libc::__errno_location() {
                    libc::EACCES => denied = true,
                    libc::ENOENT | libc::ENOTDIR => {}
                    _ => return Step::Execute,
                }
            }
            if let Some(fd) = self.held_executable {
                self.tell(TRIES, tried.to_ne_bytes());
                let held = || {
                    libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), arguments, environment, libc::AT_EMPTY_PATH);
                    *libc::__errno_location()
                };
                // The interpreter of a script opens it by this number, so it has to stay open (execveat(2), BUGS).
                if held() == libc::ENOENT && libc::syscall(libc::SYS_fcntl, fd, libc::F_SETFD, 0) == 0 {
                    held();
                }
                return Step::Execute;
            }
            *libc::__errno_location() = if denied { libc::EACCES } else { libc::ENOENT };
            Step::Execute
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
