//! A terminal that a picture is drawn on again and again, and that is given back as it was.
//!
//! Knows nothing of what is drawn.

use std::io::{self, IsTerminal, Write, stdin, stdout};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// The alternate screen without a cursor (xterm's control sequences; terminals without it ignore it).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// What ends it or wants it drawn again.
const SIGNALS: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP, Signal::SIGWINCH];

/// The terminal, as long as this lives.
#[derive(Debug)]
pub(super) struct Canvas {
    signals: SignalFd,
    /// How the keyboard was before, where there is one.
    keyboard: Option<Termios>,
    /// What was drawn last.
    drawn: String,
    /// The signal that ended it.
    ended_by: Option<Signal>,
}

impl Canvas {
    /// Takes the terminal. The signals come by a descriptor from here on, so that none is missed between two looks.
    pub(super) fn take() -> io::Result<Self> {
        let set = SigSet::from_iter(SIGNALS);
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let mut canvas = Self { signals, keyboard: None, drawn: String::new(), ended_by: None };
        canvas.enter()?;
        Ok(canvas)
    }

    /// When a signal came.
    pub(super) fn interrupt(&self) -> PollFd<'_> {
        PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)
    }

    /// Handles the signals that came; false where one of them ends it.
    pub(super) fn go_on(&mut self) -> io::Result<bool> {
        self.drawn.clear();
        while let Some(came) = self.signals.read_signal()? {
            match i32::try_from(came.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGWINCH) | None => {}
                Some(Signal::SIGTSTP) => {
                    self.leave();
                    raise(Signal::SIGSTOP)?;
                    self.enter()?;
                }
                Some(signal) => {
                    self.ended_by = Some(signal);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Draws the picture over the last one, in one piece: where the terminal can (mode 2026), it shows it at once.
    pub(super) fn draw(&mut self, picture: &str, rows: Option<usize>) -> io::Result<()> {
        let lines: Vec<&str> = picture.lines().take(rows.unwrap_or(usize::MAX)).collect();
        let text = format!("\x1b[?2026h\x1b[H{}\x1b[K\x1b[J\x1b[?2026l", lines.join("\x1b[K\r\n"));
        if text == self.drawn {
            return Ok(());
        }
        stdout().write_all(text.as_bytes())?;
        self.drawn = text;
        stdout().flush()
    }

    /// What is typed would stand in the picture.
    fn enter(&mut self) -> io::Result<()> {
        if let Some(before) = stdin().is_terminal().then(|| tcgetattr(stdin()).ok()).flatten() {
            let mut silent = before.clone();
            silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON);
            let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, &silent);
            self.keyboard = Some(before);
        }
        stdout().write_all(ENTER.as_bytes())?;
        stdout().flush()
    }

    fn leave(&mut self) {
        let _ = stdout().write_all(LEAVE.as_bytes()).and_then(|()| stdout().flush());
        if let Some(before) = self.keyboard.take() {
            // What was typed meanwhile was not meant for the shell.
            let _ = tcsetattr(stdin(), SetArg::TCSAFLUSH, &before);
        }
    }
}

impl Drop for Canvas {
    /// Ends as the signal would have ended it, so that a shell's loop around it ends as well.
    fn drop(&mut self) {
        self.leave();
        let _ = SigSet::from_iter(SIGNALS).thread_unblock();
        if let Some(signal) = self.ended_by {
            let _ = raise(signal);
        }
    }
}
