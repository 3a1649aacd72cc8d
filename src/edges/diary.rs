//! The story in the log: each line at its level, with the fields that its event has.
//!
//! Never words a line itself: fields and sentence are those of the event.

use serde_json::Value;
use tracing::{info, warn};

use crate::supervisor::{Health, News, Outcome};

/// Names of fields are part of the program for `tracing`, so all of them stand here; a line has those that are there.
macro_rules! write_at {
    ($level:ident, $target:expr, $news:ident, $fields:ident) => {
        $level!(
            target: $target,
            event = $fields["event"].as_str(),
            generation = $fields["generation"].as_u64(),
            pid = $fields["pid"].as_i64(),
            why = $fields["why"].as_str(),
            after_secs = $fields["after_secs"].as_f64(),
            answer = $fields["answer"].as_str(),
            open = $fields["open"].as_u64(),
            busy = $fields["busy"].as_u64(),
            outcome = $fields["outcome"].as_str(),
            cause = $fields["cause"].as_str(),
            reason = $fields["reason"].as_str(),
            exit = $fields["exit"].as_str(),
            then = $fields["then"].as_str(),
            output = lines(&$fields["output"]),
            name = $fields["name"].as_str(),
            state = $fields["state"].as_str(),
            "{}",
            $news
        )
    };
}

/// The target of verdicts: in text for people the line before has the same sentence.
pub const VERDICT: &str = "zdr::verdict";

/// The target of the other lines.
const STORY: &str = "zdr::story";

/// Writes a line.
pub(super) fn write(news: &News) {
    let fields = serde_json::to_value(news).unwrap_or(Value::Null);
    match news {
        News::Verdict(verdict) if verdict.outcome == Outcome::Done => write_at!(info, VERDICT, news, fields),
        News::Verdict(_) => write_at!(warn, VERDICT, news, fields),
        News::Failed { .. }
        | News::Crashed { .. }
        | News::Killed { .. }
        | News::Stuck { .. }
        | News::Unready { .. }
        | News::Check { state: Health::Degraded | Health::Unhealthy, .. }
        | News::Retrying { .. } => write_at!(warn, STORY, news, fields),
        _ => write_at!(info, STORY, news, fields),
    }
}

/// What a server wrote, as one text: a field has one value.
fn lines(output: &Value) -> Option<String> {
    let lines = output.as_array().filter(|lines| !lines.is_empty())?;
    Some(lines.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"))
}
