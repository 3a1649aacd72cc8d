//! The lines of the story, as NDJSON and as Server-Sent Events.

use std::time::SystemTime;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::supervisor::{News, Verdict};

/// One line of the story, written once for all readers.
#[derive(Clone, Debug)]
pub struct Line {
    number: u64,
    name: String,
    json: String,
}

impl Line {
    /// Writes it.
    pub fn new(number: u64, news: &News, at: SystemTime) -> Self {
        let mut value = serde_json::to_value(news).unwrap_or_default();
        let name = value.get("event").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Value::Object(fields) = &mut value {
            fields.insert("message".to_owned(), news.to_string().into());
            fields.insert("time".to_owned(), humantime::format_rfc3339_millis(at).to_string().into());
        }
        Self { number, name, json: value.to_string() }
    }

    /// True for the verdict of some request, which is not everybody's.
    pub(super) fn is_verdict(&self) -> bool {
        self.name == "verdict"
    }

    pub(super) fn ndjson(&self) -> Bytes {
        Bytes::from(format!("{}\n", self.json))
    }

    /// The fields of HTML Living Standard §9.2 (server-sent events).
    pub(super) fn server_sent_event(&self) -> Bytes {
        Bytes::from(format!("id: {}\nevent: {}\ndata: {}\n\n", self.number, self.name, self.json))
    }
}

/// The last line of an order's answer.
pub(super) fn verdict(verdict: &Verdict) -> Value {
    let mut value = json!({ "event": "verdict", "code": verdict.outcome.code(), "message": verdict.reason });
    if let (Value::Object(all), Ok(Value::Object(fields))) = (&mut value, serde_json::to_value(verdict)) {
        all.extend(fields);
    }
    value
}
