//! How many instances there are, and when they are replaced, as people write it.
//!
//! Reads and checks; what is done about it is the rules' affair.

use std::time::Duration;

use super::process::amount;
use super::{INFINITY, duration};
use crate::supervisor::{Budget, Lifetime};

/// The most instances of a generation.
pub const MOST_INSTANCES: u32 = 256;

/// The time of a budget that names none.
const WINDOW: Duration = Duration::from_secs(600);

/// Less than that no program has.
const LEAST_MEMORY: u64 = 1 << 20;

/// How many instances are started at a time; None for all at once.
pub type Surge = Option<u32>;

/// Reads `all` or a number of instances.
pub fn surge(given: &str) -> Result<Surge, String> {
    match whole(given) {
        _ if given == "all" => Ok(None),
        Some(number @ 1..=MOST_INSTANCES) => Ok(Some(number)),
        _ => Err(format!("`{given}` should be `all` or a number of instances from 1 to {MOST_INSTANCES}")),
    }
}

/// Reads `N` or `N/WINDOW`.
pub fn budget(given: &str) -> Result<Budget, String> {
    let why = |why: &str| format!("`{given}` is no number of restarts: {why}");
    let (restarts, window) = given.split_once('/').map_or((given, None), |(number, window)| (number, Some(window)));
    let restarts = whole(restarts).filter(|number| *number > 0);
    let restarts = restarts.ok_or_else(|| why("write for example `5`, or `5/10m` for five in ten minutes"))?;
    let window = window.map(duration).transpose().map_err(|error| why(&error))?.unwrap_or(WINDOW);
    if window < Duration::from_secs(1) {
        return Err(why("the time behind `/` should be at least 1s"));
    }
    Ok(Budget { restarts, window })
}

/// Reads `D` or `D~JITTER`.
pub fn lifetime(given: &str) -> Result<Lifetime, String> {
    let why = |why: &str| format!("`{given}` is no lifetime: {why}");
    let (time, jitter) = given.split_once('~').map_or((given, None), |(time, jitter)| (time, Some(jitter)));
    let time = duration(time).map_err(|error| why(&error))?;
    let jitter = jitter.map(duration).transpose().map_err(|error| why(&error))?.unwrap_or_default();
    if time < Duration::from_secs(1) {
        return Err(why("it should be at least 1s"));
    }
    if jitter > time {
        return Err(why("what is behind `~` should be no more than what is before it"));
    }
    Ok(Lifetime { time, jitter })
}

/// Reads a size of memory: bytes, with K, M, G or T behind the number for more.
pub fn memory(given: &str) -> Result<u64, String> {
    let size = amount(given, true).filter(|size| (LEAST_MEMORY..INFINITY).contains(size));
    size.ok_or_else(|| format!("`{given}` should be a size of at least 1M, for example 512M or 2G"))
}

/// `parse` would take a plus sign.
fn whole(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_surge_is_all_or_a_number() {
        assert_eq!((surge("all"), surge("3"), surge("256")), (Ok(None), Ok(Some(3)), Ok(Some(256))));
        for given in ["", "0", "257", "+3", "ALL", "50%"] {
            assert!(surge(given).unwrap_err().contains("from 1 to 256"), "{given}");
        }
    }

    #[test]
    fn a_budget_without_a_time_is_for_ten_minutes() {
        assert_eq!(budget("5"), Ok(Budget { restarts: 5, window: 10 * MINUTE }));
        assert_eq!(budget("2/1m 30s"), Ok(Budget { restarts: 2, window: MINUTE * 3 / 2 }));
        for (given, words) in [
            ("", "write for example"),
            ("0", "write for example"),
            ("5/", "duration"),
            ("5/10", "no unit"),
            ("5/9ms", "1s"),
        ] {
            let error = budget(given).unwrap_err();
            assert!(
                error.starts_with(&format!("`{given}` is no number of restarts: ")) && error.contains(words),
                "{error}"
            );
        }
    }

    #[test]
    fn a_lifetime_varies_by_no_more_than_itself() {
        assert_eq!(lifetime("1m"), Ok(Lifetime { time: MINUTE, jitter: Duration::ZERO }));
        assert_eq!(lifetime("1h~1h"), Ok(Lifetime { time: 60 * MINUTE, jitter: 60 * MINUTE }));
        for (given, words) in
            [("", "duration"), ("24", "no unit"), ("900ms", "at least 1s"), ("1m~61s", "no more"), ("1m~", "duration")]
        {
            let error = lifetime(given).unwrap_err();
            assert!(error.starts_with(&format!("`{given}` is no lifetime: ")) && error.contains(words), "{error}");
        }
    }

    #[test]
    fn memory_is_at_least_a_mebibyte() {
        assert_eq!((memory("1M"), memory("1048576"), memory("2g")), (Ok(1 << 20), Ok(1 << 20), Ok(2 << 30)));
        for given in ["", "1023K", "infinity", "-1M", "1.5G", "99999999T"] {
            assert!(memory(given).unwrap_err().contains("at least 1M"), "{given}");
        }
    }
}
