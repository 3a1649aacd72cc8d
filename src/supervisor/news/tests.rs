//! The schema in `contrib` describes every kind of news with every field, in both directions.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::{Cause, Generation, Health, Hook, News, Verdict, Why};
use crate::supervisor::Outcome;

/// One of each kind after the other; the compiler asks for those that are new.
fn after(last: Option<&News>) -> Option<News> {
    let (generation, text, after, output) = (Generation(1), String::new, Duration::ZERO, Vec::new());
    let Some(last) = last else {
        return Some(News::Spawned { generation, instance: 1, of: 1, pid: 1, why: Why::Boot });
    };
    let reason = text();
    Some(match last {
        News::Spawned { .. } => News::NotReady { generation, instance: 1, of: 1, answer: text() },
        News::NotReady { .. } => News::InstanceReady { generation, instance: 1, ready: 1, of: 2 },
        News::InstanceReady { .. } => {
            News::InstanceLost { generation, instance: 1, exit: text(), then: text(), output }
        }
        News::InstanceLost { .. } => News::Sharing { generation, ready: 1, of: 2 },
        News::Sharing { .. } => News::Hook { generation, hook: Hook::BeforeStart, failure: None },
        News::Hook { .. } => News::Changed { path: text() },
        News::Changed { .. } => News::Paused { time: after },
        News::Paused { .. } => News::Resumed,
        News::Resumed => News::Unapplied { reason },
        News::Unapplied { .. } => News::Refused { reason },
        News::Refused { .. } => News::Worn { generation, reason },
        News::Worn { .. } => News::Waiting,
        News::Waiting => News::Serving { generation, after },
        News::Serving { .. } => News::Draining { generation, open: 0, busy: 0 },
        News::Draining { .. } => News::Signalled { generation },
        News::Signalled { .. } => News::Killed { generation, reason },
        News::Killed { .. } => News::Ended { generation, exit: text(), after },
        News::Ended { .. } => News::Failed { generation, cause: Cause::Exited, reason, output },
        News::Failed { .. } => News::Crashed { generation, exit: text(), then: text(), output },
        News::Crashed { .. } => News::Returned { generation },
        News::Returned { .. } => News::Stuck { generation, reason },
        News::Stuck { .. } => News::Recovered { generation },
        News::Recovered { .. } => News::Unready { generation },
        News::Unready { .. } => News::Leaving { generation },
        News::Leaving { .. } => News::Check { name: text(), state: Health::Healthy, message: text() },
        News::Check { .. } => News::Retrying { after, serving: Some(generation) },
        News::Retrying { .. } => News::Verdict(Verdict {
            outcome: Outcome::Done,
            cause: Cause::Ready,
            generation: Some(generation),
            reason,
            output,
        }),
        News::Verdict(_) => News::Stopping,
        News::Stopping => return None,
    })
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn the_schema_describes_every_field_of_every_kind() {
    let schema: Value = serde_json::from_str(include_str!("../../../contrib/events.schema.json")).unwrap();
    let mut kinds = BTreeSet::new();
    let mut news = after(None);
    while let Some(told) = news {
        let json = serde_json::to_value(&told).unwrap();
        let kind = json["event"].as_str().unwrap().to_owned();
        let described = keys(&schema["$defs"][&kind]["properties"]);
        let mut told_fields = keys(&json);
        told_fields.remove("event");
        // Every line has one; the code is for the line that ends the answer to an order.
        told_fields.remove("message");
        let only_described: Vec<_> = described.difference(&told_fields).filter(|field| **field != "code").collect();
        assert!(only_described.is_empty(), "{kind} has no {only_described:?}");
        let only_told: Vec<_> = told_fields.difference(&described).collect();
        assert!(only_told.is_empty(), "contrib/events.schema.json does not describe {only_told:?} of {kind}");
        kinds.insert(kind);
        news = after(Some(&told));
    }
    let rules = schema["allOf"].as_array().unwrap();
    for rule in rules {
        let name = rule["if"]["properties"]["event"]["const"].as_str().unwrap();
        assert_eq!(rule["then"]["$ref"], format!("#/$defs/{name}"));
    }
    assert_eq!(rules.len(), keys(&schema["$defs"]).len());
    assert_eq!(keys(&schema["$defs"]), kinds.iter().map(String::as_str).collect());
}
