//! What the body of an answer has to say, in one line.

use serde_json::Value;

use crate::edges::plain_text::plain;

/// The words for people in an object of JSON; else the first line that is not empty.
pub(super) fn message(body: &[u8]) -> String {
    let object = serde_json::from_slice::<Value>(body).ok();
    let said = |name| object.as_ref()?.get(name)?.as_str().map(|text| plain(text.as_bytes()));
    let mut words = ["message", "error", "status"].into_iter().filter_map(said);
    if let Some(text) = words.find(|text| !text.is_empty()) {
        return text;
    }
    let lines = body.split(|byte| *byte == b'\n').map(plain);
    lines.into_iter().find(|line| !line.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_it_in_its_message_its_error_or_its_status() {
        for (body, said) in [
            (r#"{"status":"fail","message":"db is down"}"#, "db is down"),
            (r#"{"status":"fail","error":"no route"}"#, "no route"),
            ("{\n  \"status\": \"UP\"\n}\n", "UP"),
            (r#"{"message":"","status":"UP"}"#, "UP"),
            (r#"{"message":"two\nlines \u001b[1mbold"}"#, "twolines bold"),
        ] {
            assert_eq!(message(body.as_bytes()), said);
        }
    }

    #[test]
    fn other_text_says_it_in_its_first_line() {
        for (body, said) in [
            (&b"\r\n\n  a\tb\x1b[31mc \r\nd"[..], "a bc"),
            (b"ok", "ok"),
            (b"\xff\x00", "\u{fffd}"),
            (b"", ""),
            (b" \n\x07\n", ""),
            (b"{\"ready\":true}", "{\"ready\":true}"),
            (b"[1]\n2", "[1]"),
            (b"{\"message\": cut off", "{\"message\": cut off"),
        ] {
            assert_eq!(message(body), said);
        }
        assert_eq!(message("ü".repeat(500).as_bytes()).chars().count(), 200);
    }
}
