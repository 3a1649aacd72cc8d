//! Reading single values of the command line; each error is one sentence with the way out.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use nix::sys::signal::Signal;

use crate::address::{Address, Listener, Options};
use crate::config::{self, LogFormat};
use crate::rehearse::sample::Bad;
use crate::runtime_directory::check_name;
use crate::supervisor::{QueueMode, Restart, Scale};

/// One without a name has an empty one until its place among the others is known.
pub(super) fn listener(given: &str) -> Result<Listener, String> {
    Listener::parse(given, "").map_err(|error| error.to_string())
}

/// A TCP address, or a path with its rights; everybody may ask there, as nothing can be changed.
pub(super) fn health(given: &str) -> Result<Listener, String> {
    let mut listener = Listener::parse(given, "health").map_err(|error| error.to_string())?;
    let asked = &listener.options;
    let rights =
        Options { mode: asked.mode, owner: asked.owner.clone(), group: asked.group.clone(), ..Options::default() };
    match &listener.address {
        Address::Udp(_) | Address::Abstract(_) => Err(format!(
            "{} is no TCP address and no path; write for example 127.0.0.1:9000 or unix:/run/app-health.sock",
            listener.address
        )),
        _ if *asked != rights => Err(format!("`{given}` has keys of a listener; only mode, owner and group fit here")),
        Address::Tcp(_) => Ok(listener),
        Address::Unix(_) => {
            listener.options.mode.get_or_insert(0o666);
            Ok(listener)
        }
    }
}

pub(super) fn queue() -> impl TypedValueParser<Value = QueueMode> {
    one_of([
        ("shared", "They take connections from one queue", QueueMode::Shared),
        ("per-instance", "Each has its own", QueueMode::PerInstance),
    ])
}

pub(super) fn restart() -> impl TypedValueParser<Value = Restart> {
    one_of([
        ("always", "However it ended", Restart::Always),
        ("on-failure", "When its exit code was not 0, or a signal ended it", Restart::OnFailure),
        ("never", "It stays down", Restart::Never),
    ])
}

pub(super) fn log_format() -> impl TypedValueParser<Value = LogFormat> {
    one_of([
        ("text", "For people", LogFormat::Text),
        ("json", "One JSON object a line", LogFormat::Json),
        ("journal", "Entries of the systemd journal, with fields", LogFormat::Journal),
    ])
}

/// Words that stand for values of floors below, which know no command line.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    words: [(&'static str, &'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    let possible = words.map(|(word, help, _)| PossibleValue::new(word).help(help));
    PossibleValuesParser::new(possible).try_map(move |given| {
        let meant = words.iter().find(|(word, _, _)| *word == given).map(|(_, _, value)| *value);
        meant.ok_or("it is none of the possible values")
    })
}

pub(super) fn signal(given: &str) -> Result<i32, String> {
    config::signal(given, |name| name.parse::<Signal>().ok().map(|signal| signal as i32))
}

pub(super) fn variable(given: &str) -> Result<(OsString, OsString), String> {
    match given.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("`{given}` is no variable; write KEY=VALUE")),
    }
}

pub(super) fn prefix(given: &str) -> Result<String, String> {
    let good =
        given.starts_with('/') && given.len() > 1 && !given.ends_with('/') && !given.contains(char::is_whitespace);
    if good { Ok(given.to_owned()) } else { Err(format!("`{given}` is no path prefix; write for example /health")) }
}

pub(super) fn name(given: &str) -> Result<String, String> {
    check_name(given).map(|()| given.to_owned())
}

pub(super) fn scale(given: &str) -> Result<Scale, String> {
    let wrong = || format!("`{given}` is no number of instances; write N, +N or -N");
    let digits = given.trim_start_matches(['+', '-']);
    let number = digits.parse::<u16>().map_err(|_| wrong())?;
    match given.len() - digits.len() {
        0 => Ok(Scale::To(number.into())),
        1 if given.starts_with('+') => Ok(Scale::By(number.into())),
        1 => Ok(Scale::By(-i32::from(number))),
        _ => Err(wrong()),
    }
}

pub(super) fn pause(given: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(3600);
    let time = config::duration(given)?;
    let good = (Duration::from_millis(1)..=LONGEST).contains(&time);
    if good { Ok(time) } else { Err(format!("`{given}` should be from 1ms to 1h")) }
}

pub(super) fn rate(given: &str) -> Result<f64, String> {
    let rate = given.parse::<f64>().ok().filter(|rate| (0.1..=100_000.0).contains(rate));
    rate.ok_or_else(|| format!("`{given}` should be a number of requests a second from 0.1 to 100000"))
}

pub(super) fn bad(given: &str) -> Result<Bad, String> {
    let wrong = || format!("`{given}` should be exit:CODE, hang, status:CODE or crash-after:DURATION");
    match given.split_once(':') {
        None if given == "hang" => Ok(Bad::Hang),
        Some(("exit", code)) => code.parse().map(Bad::Exit).map_err(|_| wrong()),
        Some(("status", status)) => status.parse().map(Bad::Status).map_err(|_| wrong()),
        Some(("crash-after", time)) => config::duration(time).map(Bad::CrashAfter),
        _ => Err(wrong()),
    }
}
