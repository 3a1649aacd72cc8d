//! What can be ordered besides a reload, by its path and its body.
//!
//! Reads only; the owner carries it out.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::edges::notice::Order;
use crate::supervisor::Scale;

/// How long new connections are held where nobody said so.
const PAUSE: f64 = 30.0;

/// The longest time for which they can be held: their clients have gone by then.
const LONGEST_PAUSE: f64 = 3600.0;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleBody {
    instances: Option<u32>,
    more: Option<i32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseBody {
    for_secs: Option<f64>,
}

/// The order at this path; None where there is none, and a sentence where its body is no good.
pub(super) fn order(path: &str, body: &Bytes) -> Option<Result<Order, String>> {
    Some(match path {
        "/v1/restart" => Ok(Order::Restart),
        "/v1/rollback" => Ok(Order::Rollback),
        "/v1/stop" => Ok(Order::Stop),
        "/v1/resume" => Ok(Order::Resume),
        "/v1/scale" => read::<ScaleBody>(body).and_then(|body| match (body.instances, body.more) {
            (Some(instances), None) => Ok(Order::Scale(Scale::To(instances))),
            (None, Some(more)) => Ok(Order::Scale(Scale::By(more))),
            _ => Err("say either `instances` or `more`".to_owned()),
        }),
        "/v1/pause" => read::<PauseBody>(body).and_then(|body| pause(body.for_secs.unwrap_or(PAUSE))),
        _ => return None,
    })
}

fn pause(seconds: f64) -> Result<Order, String> {
    match (0.001..=LONGEST_PAUSE).contains(&seconds) {
        true => Ok(Order::Pause(Duration::from_secs_f64(seconds))),
        false => Err(format!("`for_secs` is {seconds}, and should be from 0.001 to {LONGEST_PAUSE}")),
    }
}

fn read<T: DeserializeOwned + Default>(body: &Bytes) -> Result<T, String> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| format!("the body is no such order: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(path: &str, body: &'static str) -> Option<Result<Order, String>> {
        order(path, &Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn an_order_is_a_path_and_for_some_a_number() {
        assert_eq!(ordered("/v1/rollback", ""), Some(Ok(Order::Rollback)));
        assert_eq!(ordered("/v1/scale", r#"{"instances":4}"#), Some(Ok(Order::Scale(Scale::To(4)))));
        assert_eq!(ordered("/v1/scale", r#"{"more":-1}"#), Some(Ok(Order::Scale(Scale::By(-1)))));
        assert_eq!(ordered("/v1/pause", ""), Some(Ok(Order::Pause(Duration::from_secs(30)))));
        assert_eq!(ordered("/v1/pause", r#"{"for_secs":0.5}"#), Some(Ok(Order::Pause(Duration::from_millis(500)))));
        assert_eq!(ordered("/v1/status", ""), None);
    }

    #[test]
    fn an_order_that_means_nothing_is_refused_with_the_reason() {
        for (path, body, words) in [
            ("/v1/scale", "", "say either `instances` or `more`"),
            ("/v1/scale", r#"{"instances":1,"more":1}"#, "say either"),
            ("/v1/scale", r#"{"instances":-1}"#, "the body is no such order"),
            ("/v1/scale", r#"{"to":4}"#, "unknown field `to`"),
            ("/v1/pause", r#"{"for_secs":0}"#, "from 0.001 to 3600"),
            ("/v1/pause", r#"{"for_secs":1e9}"#, "from 0.001 to 3600"),
            ("/v1/pause", "30", "the body is no such order"),
        ] {
            let error = ordered(path, body).unwrap().unwrap_err();
            assert!(error.contains(words), "{path} {body}: {error}");
        }
    }
}
