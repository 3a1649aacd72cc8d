//! The log of a supervisor: lines on stderr, for people or as JSON, or entries of the systemd journal.
//!
//! Never waits and never fails: whoever reads the log may be slow or gone, and the supervisor goes on. What cannot be
//! written at once is left out.

mod journal;
mod prose;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};

/// The levels as `$ZDR_LOG` has them.
const LEVELS: [(&str, LevelFilter); 5] = [
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// How much is logged, by the options or else by `$ZDR_LOG`.
pub fn level(asked: Log, variable: Option<String>) -> Result<LevelFilter, String> {
    let usual = match variable.filter(|value| !value.is_empty()) {
        None => LevelFilter::INFO,
        Some(word) => match LEVELS.iter().find(|(name, _)| word.eq_ignore_ascii_case(name)) {
            Some((_, level)) => *level,
            None => return Err(format!("ZDR_LOG: `{word}` is not one of error, warn, info, debug, trace")),
        },
    };
    Ok(match (asked.verbose, asked.quiet) {
        (0, 0) => usual,
        (0, 1) => LevelFilter::WARN,
        (0, _) => LevelFilter::ERROR,
        (1, _) => LevelFilter::DEBUG,
        (_, _) => LevelFilter::TRACE,
    })
}

/// Starts it, for the supervisor of this name.
pub fn begin(level: LevelFilter, format: Option<LogFormat>, name: &str) -> Result<(), String> {
    match format {
        Some(LogFormat::Json) => to_stderr(level, true),
        Some(LogFormat::Journal) => match journal::begin(level, name) {
            // One that does not read now is no reason not to begin.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to_stderr(level, false),
            begun => begun
                .map_err(|error| format!("cannot log to the journal: {error}; choose --log-format text or json"))?,
        },
        None if journal::is_stderr() && journal::begin(level, name).is_ok() => {}
        Some(LogFormat::Text) | None => to_stderr(level, false),
    }
    Ok(())
}

fn to_stderr(level: LevelFilter, as_json: bool) {
    // Complaints about a log that cannot be written would go to stderr as well, and panic.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    let log = log.with_max_level(level).with_writer(|| Unhurried).with_target(false);
    match as_json {
        // Colour is for terminals.
        false => {
            let log = log.with_ansi(io::stderr().is_terminal()).fmt_fields(prose::Prose);
            log.finish().with(prose::NoVerdicts).init();
        }
        true => log.json().flatten_event(true).init(),
    }
}

/// stderr as long as somebody takes what is written. The descriptor is shared with others, so it is asked rather than made
/// non-blocking.
struct Unhurried;

impl Write for Unhurried {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_at_once(&io::stderr(), line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a pipe that is writable takes for certain: PIPE_BUF, pipe(7).
const PART: usize = 4096;

/// Writes what is taken at once. A line that was torn is ended before the next, so that one is lost and not two.
fn write_at_once(output: &impl AsFd, line: &[u8]) {
    static TORN: AtomicBool = AtomicBool::new(false);
    let put =
        |part: &[u8]| is_writable(output) && nix::unistd::write(output, part).is_ok_and(|taken| taken == part.len());
    if TORN.load(Ordering::Relaxed) {
        TORN.store(!put(b"\n"), Ordering::Relaxed);
    }
    let parts = line.chunks(PART);
    let number = parts.len();
    let taken = parts.take_while(|part| put(part)).count();
    if 0 < taken && taken < number {
        TORN.store(true, Ordering::Relaxed);
    }
}

fn is_writable(descriptor: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(descriptor.as_fd(), PollFlags::POLLOUT)];
    poll(&mut asked, PollTimeout::ZERO).is_ok() && asked[0].revents() == Some(PollFlags::POLLOUT)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn chosen(flags: &[&str], variable: Option<&str>) -> Result<LevelFilter, String> {
        let words = ["zdr", "run"].iter().chain(flags).chain(&["--", "true"]);
        let Command::Run(args) = Cli::parse_from(words).command else { panic!("this is `zdr run`") };
        let asked = Log { format: None, verbose: args.options.verbose, quiet: args.options.quiet };
        level(asked, variable.map(str::to_owned))
    }

    #[test]
    fn flags_choose_the_level_and_win_over_the_variable() {
        for (flags, variable, wanted) in [
            (&[][..], None, LevelFilter::INFO),
            (&[], Some(""), LevelFilter::INFO),
            (&[], Some("error"), LevelFilter::ERROR),
            (&[], Some("WARN"), LevelFilter::WARN),
            (&[], Some("trace"), LevelFilter::TRACE),
            (&["-v"], Some("error"), LevelFilter::DEBUG),
            (&["-vv"], None, LevelFilter::TRACE),
            (&["-v", "--verbose", "-v"], None, LevelFilter::TRACE),
            (&["-q"], Some("debug"), LevelFilter::WARN),
            (&["-qq"], None, LevelFilter::ERROR),
            (&["-qqq"], None, LevelFilter::ERROR),
        ] {
            assert_eq!(chosen(flags, variable), Ok(wanted), "{flags:?} {variable:?}");
        }
    }

    #[test]
    fn a_line_for_which_a_pipe_has_no_room_is_left_out_without_waiting() {
        let (reader, writer) = io::pipe().unwrap();
        let room = 16 * PART;
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(i32::try_from(room).unwrap())).unwrap();
        let long = |letter: u8| [vec![letter; 6 * PART], b"\n".to_vec()].concat();
        write_at_once(&writer, &long(b'a'));
        write_at_once(&writer, &long(b'b'));
        // Torn, then nothing fits any more.
        write_at_once(&writer, &long(b'c'));
        write_at_once(&writer, b"lost\n");
        let mut text = vec![0; room];
        let mut reader = reader;
        let taken = io::Read::read(&mut reader, &mut text).unwrap();
        assert!(taken < room && text[..taken].ends_with(b"c"), "{taken}");
        write_at_once(&writer, b"next\n");
        drop(writer);
        let mut rest = Vec::new();
        io::Read::read_to_end(&mut reader, &mut rest).unwrap();
        let whole = String::from_utf8([&text[..taken], &rest[..]].concat()).unwrap();
        let lines: Vec<(char, usize)> = whole.lines().map(|line| (line.chars().next().unwrap(), line.len())).collect();
        assert_eq!(lines[..2], [('a', 6 * PART), ('b', 6 * PART)]);
        assert!(lines[2].0 == 'c' && lines[2].1 < 6 * PART && lines[3] == ('n', 4) && lines.len() == 4, "{lines:?}");
    }

    #[test]
    fn a_level_that_means_nothing_is_refused_whatever_the_flags_say() {
        for flags in [&[][..], &["-v"]] {
            let told = chosen(flags, Some("loud"));
            assert_eq!(told, Err("ZDR_LOG: `loud` is not one of error, warn, info, debug, trace".to_owned()));
        }
    }
}
