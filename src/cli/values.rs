//! Reading single values of the command line; each error is one sentence with the way out.

use std::ffi::OsString;

use nix::sys::signal::Signal;

use crate::config;
use crate::rehearse::sample::Bad;
use crate::runtime_directory::check_name;

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
