//! What stands behind the question mark, and the one header that means the same.
//!
//! Says what is wrong with a value, and never guesses.

use std::time::Duration;

use crate::edges::http_server::Asked;

/// `poll_interval=1.0`, in seconds.
pub(super) fn poll_interval(asked: &Asked) -> Result<Duration, String> {
    let Some(value) = value(asked, "poll_interval") else { return Ok(Duration::from_secs(1)) };
    match value.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("poll_interval should be a number of seconds from 0.1 to 3600, not `{value}`")),
    }
}

/// `last_event_id=7`, or the header that a browser sends when it comes back; the header is the newer one.
pub(super) fn last_event_id(asked: &Asked) -> Result<u64, String> {
    let header = asked.headers.get("last-event-id").map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(value) = header.or_else(|| value(asked, "last_event_id").map(Into::into)) else { return Ok(0) };
    // A browser that has not heard a number yet sends none or an empty one.
    match value.trim() {
        "" => Ok(0),
        number => number.parse().map_err(|_| format!("the last event's id should be a number, not `{number}`")),
    }
}

/// `follow=false` ends with what there is.
pub(super) fn on_and_on(asked: &Asked) -> Result<bool, String> {
    match value(asked, "follow") {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(value) => Err(format!("follow should be `true` or `false`, not `{value}`")),
    }
}

fn value<'a>(asked: &'a Asked, name: &str) -> Option<&'a str> {
    let mut pairs = asked.query.as_deref().into_iter().flat_map(|query| query.split('&'));
    pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::Method;
    use hyper::header::HeaderMap;

    use super::*;

    fn asked(query: &str, header: Option<&str>) -> Asked {
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert("last-event-id", value.parse().unwrap());
        }
        let query = Some(query.to_owned());
        Asked { method: Method::GET, path: String::new(), query, headers, body: Bytes::new() }
    }

    #[test]
    fn an_interval_is_a_number_of_seconds_from_a_tenth_to_an_hour() {
        for (query, seconds) in [("", 1.0), ("poll_interval=0.1", 0.1), ("a=b&poll_interval=3600", 3600.0)] {
            assert_eq!(poll_interval(&asked(query, None)), Ok(Duration::from_secs_f64(seconds)), "{query}");
        }
        for value in ["", "0", "0.09", "3600.1", "-1", "nan", "inf", "1s", "1e9", "%31", "0x10"] {
            assert!(poll_interval(&asked(&format!("poll_interval={value}"), None)).is_err(), "{value}");
        }
    }

    #[test]
    fn the_header_wins_over_the_query_and_none_means_the_beginning() {
        assert_eq!(last_event_id(&asked("", None)), Ok(0));
        assert_eq!(last_event_id(&asked("last_event_id=7", None)), Ok(7));
        assert_eq!(last_event_id(&asked("last_event_id=7", Some("9"))), Ok(9));
        assert_eq!(last_event_id(&asked("last_event_id=", Some(""))), Ok(0));
        for value in ["x", "-1", "1.5", "18446744073709551616", "7 8"] {
            assert!(last_event_id(&asked(&format!("last_event_id={value}"), None)).is_err(), "{value}");
            assert!(last_event_id(&asked("", Some(value))).is_err(), "{value}");
        }
    }

    #[test]
    fn following_is_ended_by_false_alone() {
        assert_eq!(on_and_on(&asked("", None)), Ok(true));
        assert_eq!(on_and_on(&asked("follow=false", None)), Ok(false));
        assert!(on_and_on(&asked("follow=no", None)).is_err());
    }
}
