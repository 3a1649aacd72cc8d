//! The filter that an instance is put under between clone and exec, so that its calls are notified.
//!
//! It looks at numbers only (seccomp(2): a filter cannot follow pointers) and never refuses a call.

use std::fmt;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use sendfd::RecvWithFd;
// Opcodes of classic BPF, `<linux/bpf_common.h>`.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// AUDIT_ARCH_* of `<linux/audit.h>` for the programs that zdr is built for; others pass the filter untouched.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// unlink(2), which newer architectures leave to unlinkat(2).
#[cfg(target_arch = "x86_64")]
pub(super) const UNLINK: Option<libc::c_long> = Some(libc::SYS_unlink);
#[cfg(not(target_arch = "x86_64"))]
pub(super) const UNLINK: Option<libc::c_long> = None;

/// The length of a `sockaddr_nl`: every look-up of a name binds a netlink socket, and none is ever of interest.
const NETLINK_ADDRESS: u32 = 12;

// Where a filter finds the words of `struct seccomp_data` (`<linux/seccomp.h>`); arguments have 64 bits, and the calls
// look at the low half of an `int`.
const NUMBER: u32 = 0;
const ARCHITECTURE_WORD: u32 = 4;
const THIRD_ARGUMENT: u32 = 16 + 2 * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };

const INSTRUCTIONS: u16 = 13;

/// The filter, prepared before clone so that the child only makes system calls.
pub struct Filter {
    /// The keeper is told as well, and first.
    keeper: Option<RawFd>,
    instructions: [libc::sock_filter; INSTRUCTIONS as usize],
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}

impl Filter {
    /// Lays it out.
    ///
    /// For all numbers but four the kernel sees that nothing else decides, and remembers that they are allowed, so that
    /// they do not run the filter at all (`seccomp_cache_prepare` in kernel/seccomp.c, Linux 5.11). The numbers of
    /// x32 programs have a bit of their own and equal none of the four.
    pub(in crate::edges::kernel) fn new(keeper: Option<RawFd>) -> Self {
        const LENGTH_OF_BIND: u8 = 7;
        const FLAGS_OF_UNLINKAT: u8 = 9;
        const ALLOW: u8 = 11;
        const NOTIFY: u8 = 12;
        // Each with its number of the next one, if true and if not.
        let steps = [
            (LOAD_WORD, ARCHITECTURE_WORD, 1, 1),
            (JUMP_IF_EQUAL, ARCHITECTURE.unwrap_or(0), 2, ALLOW),
            (LOAD_WORD, NUMBER, 3, 3),
            (JUMP_IF_EQUAL, number(libc::SYS_listen), NOTIFY, 4),
            (JUMP_IF_EQUAL, number(UNLINK.unwrap_or(libc::SYS_listen)), NOTIFY, 5),
            (JUMP_IF_EQUAL, number(libc::SYS_bind), LENGTH_OF_BIND, 6),
            (JUMP_IF_EQUAL, number(libc::SYS_unlinkat), FLAGS_OF_UNLINKAT, ALLOW),
            (LOAD_WORD, THIRD_ARGUMENT, 8, 8),
            (JUMP_IF_EQUAL, NETLINK_ADDRESS, ALLOW, NOTIFY),
            (LOAD_WORD, THIRD_ARGUMENT, 10, 10),
            (JUMP_IF_ANY_BIT, libc::AT_REMOVEDIR.cast_unsigned(), ALLOW, NOTIFY),
            (RETURN, libc::SECCOMP_RET_ALLOW, NOTIFY, NOTIFY),
            (RETURN, libc::SECCOMP_RET_USER_NOTIF, 13, 13),
        ];
        let mut next = 0;
        let instructions = steps.map(|(code, k, yes, no)| {
            next += 1;
            // Jumps count from the instruction after them.
            libc::sock_filter { code, jt: yes - next, jf: no - next, k }
        });
        Self { keeper, instructions }
    }

    /// Puts this process under the filter, for ever, and sends the notify descriptor over `told`, a connected Unix
    /// stream socket. Without CAP_SYS_ADMIN that takes no_new_privs, which is then set: set-uid programs lose their power.
    ///
    /// # Errors
    /// The number of the error: EBUSY below another notifying filter, ENOSYS or EINVAL where the kernel has none.
    ///
    /// # Safety
    /// Only in a child, between clone and exec. Uses nothing but system calls and memory that is already there.
    pub unsafe fn enter(&mut self, told: RawFd) -> Result<(), i32> {
        if ARCHITECTURE.is_none() {
            return Err(libc::ENOSYS);
        }
        // SAFETY: forwarded from the caller.
        let notify = unsafe { self.install()? };
        // SAFETY: the descriptor is this process's own, and closed once.
        unsafe {
            // The keeper first: from then on it does not matter when zdr is killed.
            let kept = self.keeper.map_or(Ok(()), |keeper| send(keeper, notify));
            let sent = kept.and_then(|()| send(told, notify));
            libc::syscall(libc::SYS_close, notify);
            sent
        }
    }

    /// # Safety
    /// As `enter`.
    unsafe fn install(&mut self) -> Result<RawFd, i32> {
        // Linux 5.19: once a call was received, only a signal that kills ends it. Without, any signal with a handler (Go
        // preempts with SIGURG) makes the kernel begin the call again, although zdr may have carried it out (seccomp(2)).
        const KILLABLE: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        // Before Linux 5.16 a filter brought the costly mitigation of speculative store bypass with it (seccomp(2)).
        let mut flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | KILLABLE;
        let mut gave_up_privileges = false;
        let program = libc::sock_fprog { len: INSTRUCTIONS, filter: self.instructions.as_mut_ptr() };
        loop {
            // SAFETY: the program points to instructions that live in `self`; the kernel copies them.
            let notify =
                unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
            if let Ok(notify @ 0..) = RawFd::try_from(notify) {
                return Ok(notify);
            }
            match errno() {
                libc::EINVAL if flags & KILLABLE != 0 => flags &= !KILLABLE,
                libc::EACCES if !gave_up_privileges => {
                    gave_up_privileges = true;
                    // SAFETY: the call takes five numbers (PR_SET_NO_NEW_PRIVS(2const)).
                    unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
                }
                errno => return Err(errno),
            }
        }
    }

    /// Takes what `enter` sent, closed on exec. Waits for it; an end of file says that the child never got there.
    pub fn sent(from: &UnixStream) -> io::Result<OwnedFd> {
        let (mut byte, mut room) = ([0], [-1]);
        let (_, descriptors) = from.recv_with_fd(&mut byte, &mut room)?;
        if descriptors == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        let notify = unsafe { OwnedFd::from_raw_fd(room[0]) };
        fcntl(&notify, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        Ok(notify)
    }
}

/// sendmsg(2) with one byte and one descriptor (SCM_RIGHTS, unix(7)).
///
/// # Safety
/// As `Filter::enter`.
unsafe fn send(over: RawFd, descriptor: RawFd) -> Result<(), i32> {
    /// Of one descriptor.
    const SIZE: libc::c_uint = 4;
    // SAFETY: the macros only compute; all pointers are to this stack and outlive the call; the header and the one
    // number that are written fit into the room, which is aligned as they are.
    unsafe {
        let mut byte = 0_u8;
        let mut bytes = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut room = [0_u64; 4];
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut bytes;
        message.msg_iovlen = 1;
        message.msg_control = room.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(SIZE) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(SIZE) as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast::<RawFd>(), descriptor);
        loop {
            if libc::syscall(libc::SYS_sendmsg, over, &raw const message, libc::MSG_NOSIGNAL) >= 0 {
                return Ok(());
            }
            match errno() {
                libc::EINTR => {}
                errno => return Err(errno),
            }
        }
    }
}

fn errno() -> i32 {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() }
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}
