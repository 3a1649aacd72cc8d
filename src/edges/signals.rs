//! Signals to zdr, as words of zdr.
//!
//! They are blocked from the first line of main on and read from a descriptor (signalfd(2)), so that none is lost,
//! whatever zdr is doing.

use std::io;
use std::os::fd::AsFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::kernel::readable::Readable;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// HUP, USR1.
    Reload,
    /// USR2.
    Restart,
    /// TERM, INT.
    Stop,
    /// TTIN: one instance more.
    More,
    /// TTOU: one instance fewer.
    Fewer,
    /// CHLD: children have ended.
    Reap,
}

/// The descriptor that signals come from.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    readable: Readable,
}

fn ours() -> SigSet {
    let signals = [
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGCHLD,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
    ];
    signals.into_iter().collect()
}

/// Keeps every signal of zdr for `Signals`. Called before any thread is made, because threads inherit it.
pub fn block() -> io::Result<()> {
    Ok(ours().thread_block()?)
}

impl Signals {
    /// Opens the descriptor and registers it with the running event loop.
    pub fn open() -> io::Result<Self> {
        let fd = SignalFd::with_flags(&ours(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let readable = Readable::new(fd.as_fd().try_clone_to_owned()?)?;
        Ok(Self { fd, readable })
    }

    /// The next one. Cancel-safe: a signal is read by a call that is not interrupted.
    pub async fn next(&self) -> io::Result<Asked> {
        loop {
            let read = |_: &_| self.fd.read_signal()?.ok_or_else(|| io::ErrorKind::WouldBlock.into());
            let info = self.readable.read(read).await?;
            let number = i32::try_from(info.ssi_signo).unwrap_or_default();
            match Signal::try_from(number) {
                Ok(Signal::SIGHUP | Signal::SIGUSR1) => return Ok(Asked::Reload),
                Ok(Signal::SIGUSR2) => return Ok(Asked::Restart),
                Ok(Signal::SIGTERM | Signal::SIGINT) => return Ok(Asked::Stop),
                Ok(Signal::SIGTTIN) => return Ok(Asked::More),
                Ok(Signal::SIGTTOU) => return Ok(Asked::Fewer),
                Ok(Signal::SIGCHLD) => return Ok(Asked::Reap),
                _ => {}
            }
        }
    }
}
