//! Questions that are asked again and again: the checks of the user's, and whether the serving generation is alive.

use std::time::Duration;

use super::{Ready, duration};
use crate::address::is_name;

/// A named health check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What it is called in reports.
    pub name: String,
    /// The question.
    pub spec: Ready,
    /// How long an answer is good for.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Where it fails, all is unhealthy; else it is degraded.
    pub critical: bool,
}

/// How it is found out that the serving generation is stuck by asking it.
#[derive(Clone, Debug, PartialEq)]
pub struct Live {
    /// The question.
    pub spec: Ready,
    /// The time from one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many failures in a row mean that it is stuck.
    pub failures: u32,
}

/// Names of checks that are zdr's own.
const TAKEN: [&str; 2] = ["serving", "last_reload"];

/// Each may have a thread of its own while it waits for an answer.
const MOST: usize = 64;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

const INTERVAL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

impl Check {
    /// Reads `NAME=SPEC[,interval=10s][,timeout=5s][,critical]`. The options are read from the end, because a command may
    /// hold commas.
    pub fn parse(given: &str) -> Result<Self, String> {
        let why = |why: &str| format!("`{given}` is no check: {why}");
        let (name, mut rest) = given.split_once('=').ok_or_else(|| why("write NAME=SPEC, for example db=tcp"))?;
        if !is_name(name) {
            return Err(why(&format!("the name `{name}` may have letters, digits, `-`, `_` and `.` only")));
        }
        if TAKEN.contains(&name) {
            return Err(why(&format!("`{name}` is the name of a check of zdr's own; choose another")));
        }
        let (mut interval, mut timeout, mut critical) = (None, None, None);
        while let Some((before, option)) = rest.rsplit_once(',') {
            let set = match option.trim().split_once('=') {
                None if option.trim() == "critical" => critical.replace(true).is_some(),
                Some(("interval", value)) => {
                    interval.replace(self::interval(value).map_err(|error| why(&error))?).is_some()
                }
                Some(("timeout", value)) => {
                    timeout.replace(self::interval(value).map_err(|error| why(&error))?).is_some()
                }
                _ => break,
            };
            if set {
                return Err(why(&format!("`{option}` is given twice")));
            }
            rest = before;
        }
        let spec = question(rest).map_err(|error| why(&error))?;
        if let Some((_, option)) = rest.rsplit_once(',').filter(|(_, last)| is_like_an_option(last, &spec)) {
            return Err(why(&format!(
                "`{option}` is no option; there are interval=D, timeout=D and critical (write a comma of the path as %2C)"
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            spec,
            interval: interval.unwrap_or(INTERVAL),
            timeout: timeout.unwrap_or(TIMEOUT),
            critical: critical.is_some(),
        })
    }
}

/// Checks what no single check can show.
pub fn distinct_checks(checks: &[Check]) -> Result<(), String> {
    for (position, one) in checks.iter().enumerate() {
        if checks[..position].iter().any(|other| one.name == other.name) {
            return Err(format!("two checks are called `{}`; give each a name of its own", one.name));
        }
    }
    if checks.len() > MOST {
        return Err(format!("there are {} checks, and at most {MOST} can be", checks.len()));
    }
    Ok(())
}

/// Reads what can be asked again and again: a readiness, but for those that only a start can answer.
pub fn question(given: &str) -> Result<Ready, String> {
    let can_be = given == "tcp" || given.starts_with('/') || given.starts_with("exec:") || given.contains("://");
    if !can_be {
        return Err(format!("`{given}` cannot be asked; write a path such as /health, a URL, `tcp` or `exec:COMMAND`"));
    }
    let why = |error: String| error.replacen(&format!("`{given}` is no readiness: "), "", 1);
    Ready::parse(given).map_err(why)
}

/// Reads a time that something can happen in again and again.
pub fn interval(given: &str) -> Result<Duration, String> {
    let interval = duration(given)?;
    match (SHORTEST..=LONGEST).contains(&interval) {
        true => Ok(interval),
        false => Err(format!("`{given}` should be from 100ms to 1day")),
    }
}

/// A mistyped option behind a path would become a part of it.
fn is_like_an_option(last: &str, spec: &Ready) -> bool {
    let path = match spec {
        Ready::Path(path) => path,
        Ready::Http(url) => &url.path_and_query,
        _ => return false,
    };
    let word = last.split('=').next().unwrap_or_default();
    !path.contains('?') && !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, spec: &str, interval: u64, timeout: u64, critical: bool) -> Check {
        let spec = Ready::parse(spec).unwrap();
        let (interval, timeout) = (Duration::from_millis(interval), Duration::from_millis(timeout));
        Check { name: name.to_owned(), spec, interval, timeout, critical }
    }

    #[test]
    fn a_check_has_a_name_a_question_and_options_behind_it() {
        for (given, wanted) in [
            ("db=tcp", check("db", "tcp", 10_000, 5_000, false)),
            ("up=/health?a=b", check("up", "/health?a=b", 10_000, 5_000, false)),
            (
                "disk=exec:df --output=pcent, / | tail -1,critical",
                check("disk", "exec:df --output=pcent, / | tail -1", 10_000, 5_000, true),
            ),
            ("a=exec:echo a,b,timeout=1s,critical,interval=250ms", check("a", "exec:echo a,b", 250, 1_000, true)),
            (
                "a.b-c_1=http://127.0.0.1:1/x?ids=1,2,interval=1m",
                check("a.b-c_1", "http://127.0.0.1:1/x?ids=1,2", 60_000, 5_000, false),
            ),
        ] {
            assert_eq!(Check::parse(given), Ok(wanted));
        }
    }

    #[test]
    fn a_wrong_check_is_refused_in_one_sentence() {
        for (given, words) in [
            ("", "write NAME=SPEC"),
            ("db", "write NAME=SPEC"),
            ("a b=tcp", "the name `a b` may have"),
            ("=tcp", "the name `` may have"),
            ("serving=tcp", "the name of a check of zdr's own"),
            ("db=", "`` cannot be asked"),
            ("db=notify", "`notify` cannot be asked"),
            ("db=5s", "`5s` cannot be asked"),
            ("db=5 parsecs", "cannot be asked"),
            ("db=exec:", "the command behind `exec:` is missing"),
            ("db=http://", "is no"),
            ("db=tcp,interval=10", "the duration `10` has no unit"),
            ("db=tcp,timeout=0s", "should be from 100ms to 1day"),
            ("db=tcp,interval=1year", "should be from 100ms to 1day"),
            ("db=tcp,critical,critical", "`critical` is given twice"),
            ("db=/up,intervall=5s", "`intervall=5s` is no option"),
            ("db=/up,crit", "`crit` is no option"),
            ("db=tcp,crit", "cannot be asked"),
        ] {
            let error = Check::parse(given).unwrap_err();
            assert!(error.starts_with(&format!("`{given}` is no check: ")) && error.contains(words), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn checks_have_names_of_their_own_and_are_not_too_many() {
        let named = |name: &str| check(name, "tcp", 1, 1, false);
        assert!(distinct_checks(&[named("a"), named("b")]).is_ok());
        assert!(distinct_checks(&[named("a"), named("b"), named("a")]).unwrap_err().contains("called `a`"));
        let many: Vec<Check> = (0..65).map(|number| named(&number.to_string())).collect();
        assert!(distinct_checks(&many[..64]).is_ok() && distinct_checks(&many).is_err());
    }
}
