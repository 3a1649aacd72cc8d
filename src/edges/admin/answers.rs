//! What answers look like: JSON, with the headers that probes and proxies go by.
//!
//! Knows no route.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use serde::Serialize;
use serde_json::json;

use crate::edges::http_server::{Answer, Body};

/// 200 or 503.
pub(super) fn said(good: bool, value: &impl Serialize) -> Answer {
    json_answer(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, value)
}

/// There is nobody left to ask.
pub(super) fn gone() -> Answer {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "zdr is ending")
}

/// `{"error": "why"}`.
pub(super) fn refusal(status: StatusCode, why: &str) -> Answer {
    json_answer(status, &json!({ "error": why }))
}

/// 405, with what is allowed.
pub(super) fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("this path answers {allowed} only"));
    answer.headers.push((ALLOW, HeaderValue::from_static(allowed)));
    answer
}

/// A value as JSON. A 503 says when to ask again.
pub(super) fn json_answer(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut text = serde_json::to_string(value).unwrap_or_default() + "\n";
    let mut headers = common("application/json");
    if status == StatusCode::SERVICE_UNAVAILABLE {
        text = with_good_words_hidden(&text);
        headers.push((RETRY_AFTER, HeaderValue::from_static("1")));
    }
    Answer { status, headers, body: Body::Whole(Bytes::from(text)) }
}

/// Probes that search for a word go by it alone: HAProxy's `http-check expect string healthy` finds it in "unhealthy", and in a
/// check that is healthy where another is not, and takes no notice of the 503. Those that read JSON find the same as ever,
/// because there the first letter may be written as its number (RFC 8259, section 7).
fn with_good_words_hidden(json: &str) -> String {
    json.replace("healthy", r"\u0068ealthy").replace("degraded", r"\u0064egraded")
}

/// What comes piece by piece.
pub(super) fn stream_answer(kind: &'static str, body: Body) -> Answer {
    let mut headers = common(kind);
    // nginx buffers answers of its upstreams unless told not to.
    headers.push((HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")));
    Answer { status: StatusCode::OK, headers, body }
}

/// The headers of every answer. What is true now is not to be kept, and nothing here is to be taken for a page by guessing.
pub(super) fn common(kind: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    vec![
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn good_words_are_hidden_from_those_who_search_and_not_from_those_who_read() {
        let value = json!({
            "status": "unhealthy", "name": "healthy", "healthy": r#"\healthy \\"degraded" \u0068"#,
            "checks": { "last_reload": { "state": "degraded", "message": "it was healthy" } },
        });
        let text = with_good_words_hidden(&value.to_string());
        assert!(!text.contains("healthy") && !text.contains("degraded"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
