//! The log of a supervisor: lines on stderr, for people or as JSON.
//!
//! Never waits and never fails: whoever reads the log may be slow or gone, and the supervisor goes on. What cannot be
//! written at once is left out.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::level_filters::LevelFilter;

use crate::cli::{LogFormat, RunOptions};

/// Starts it. Colour is for terminals.
pub fn to_stderr(options: &RunOptions) {
    let level = match (options.verbose, options.quiet) {
        (true, _) => LevelFilter::DEBUG,
        (_, true) => LevelFilter::WARN,
        _ => LevelFilter::INFO,
    };
    // Complaints about a log that cannot be written would go to stderr as well, and panic.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    let log = log.with_max_level(level).with_writer(|| Unhurried).with_target(false);
    match options.log_format {
        LogFormat::Text => log.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

/// stderr as long as somebody takes what is written. The descriptor is shared with others, so it is asked rather than made
/// non-blocking: a pipe is writable where a whole line fits (PIPE_BUF, pipe(7)).
struct Unhurried;

impl Write for Unhurried {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let mut asked = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        let takes_it = poll(&mut asked, PollTimeout::ZERO).is_ok() && asked[0].revents() == Some(PollFlags::POLLOUT);
        if takes_it {
            let _ = stderr.lock().write(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
