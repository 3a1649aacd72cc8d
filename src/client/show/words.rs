//! Numbers in the words that people use for them.

use std::time::Duration;

use humantime::format_duration;
use serde_json::Value;

/// The two largest units, and tenths of a second at first: `0.3s`, `12s`, `4m 2s`, `1day 3h`.
pub(super) fn age(seconds: &Value) -> Option<String> {
    let seconds = seconds.as_f64()?.clamp(0.0, 1e12);
    if seconds < 9.95 {
        return Some(format!("{seconds:.1}s"));
    }
    let whole = Duration::from_secs(Duration::from_secs_f64(seconds).as_secs());
    Some(format_duration(whole).to_string().split(' ').take(2).collect::<Vec<_>>().join(" "))
}

/// `1 connection`, `2 crashes`.
pub(super) fn several(number: u64, noun: &str) -> String {
    let end = match noun {
        _ if number == 1 => "",
        _ if noun.ends_with("sh") => "es",
        _ => "s",
    };
    format!("{number} {noun}{end}")
}

#[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
pub(super) fn bytes(number: u64) -> String {
    let (mut size, mut unit) = (number as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    if unit == "B" { format!("{number} B") } else { format!("{size:.1} {unit}") }
}

/// Nothing where there is none.
pub(super) fn number(value: &Value) -> String {
    value.as_u64().map(|number| number.to_string()).unwrap_or_default()
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
