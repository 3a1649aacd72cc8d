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
            instance = $fields["instance"].as_u64(),
            ready = $fields["ready"].as_u64(),
            of = $fields["of"].as_u64(),
            hook = $fields["hook"].as_str(),
            failure = $fields["failure"].as_str(),
            path = $fields["path"].as_str(),
            for_secs = $fields["for_secs"].as_f64(),
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
            serving = $fields["serving"].as_u64(),
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
        | News::InstanceLost { .. }
        | News::Hook { failure: Some(_), .. }
        | News::Refused { .. }
        | News::Unapplied { .. }
        | News::Waiting
        | News::Worn { .. }
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

#[cfg(test)]
mod tests {
    /// The names of all fields in the JSON of the types that stand in a file, in the order of the file.
    fn fields(source: &str) -> Vec<&str> {
        let lines = source.lines().map(str::trim);
        let mut renamed = None;
        let mut fields = Vec::new();
        for line in
            lines.skip_while(|line| !line.starts_with("pub enum News") && !line.starts_with("pub struct Verdict"))
        {
            if line == "impl Outcome {" || line.starts_with("fn ") {
                break;
            }
            if let Some((_, rest)) = line.split_once("rename = \"") {
                renamed = rest.split('"').next();
            }
            let name = line.trim_start_matches("pub ").split(": ").next().unwrap_or_default();
            let is_field =
                line.ends_with(',') && line.contains(": ") && name.chars().all(|c| c.is_lowercase() || c == '_');
            if is_field {
                fields.push(renamed.take().unwrap_or(name));
            }
        }
        fields
    }

    #[test]
    fn every_field_of_every_event_is_in_the_log() {
        let (news, verdict) = (include_str!("../supervisor/news.rs"), include_str!("../supervisor/verdict.rs"));
        let fields = [fields(news), fields(verdict)].concat();
        assert!(fields.len() > 25 && fields.contains(&"after_secs") && fields.contains(&"outcome"), "{fields:?}");
        for field in fields {
            // What a check says is in the sentence.
            let written = field == "message" || include_str!("diary.rs").contains(&format!("$fields[\"{field}\"]"));
            assert!(written, "{field}");
        }
    }
}
