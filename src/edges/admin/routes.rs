//! The routes: method, path, answer.
//!
//! | method | path | answer |
//! |---|---|---|
//! | GET | /v1/status | seats, listeners, connections, last verdict |
//! | POST | /v1/reload | progress as NDJSON, the verdict last; body `{"command":[..],"wait":"serving"}`, both optional |
//! | POST | /v1/restart, /v1/stop | the same, without a body |
//! | GET | /v1/events | the story as Server-Sent Events |
//! | GET | health paths | see `health.rs`; these, the story and the dashboard are all that a health address answers |
//! | GET | / | the dashboard |

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{interval, sleep};

use super::dashboard;
use super::health::{Aspect, HealthPaths};
use super::report::{For, Health, Report};
use super::story::{Line, verdict};
use crate::edges::checks::Checks;
use crate::edges::figures::Figures;
use crate::edges::http_server::{Answer, Asked, Body};
use crate::edges::notice::{Notice, Order, Owner, Picture, Question};
use crate::supervisor::{Until, Verdict};

/// What every answer is made of.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    pub(super) owner: Owner,
    pub(super) story: broadcast::Sender<Line>,
    pub(super) paths: HealthPaths,
    pub(super) name: String,
    pub(super) checks: Checks,
}

/// The methods of a health path.
const READ_ONLY: &str = "GET, HEAD, OPTIONS";

/// The longest that clients and proxies see nothing on a stream; nginx gives up after 60 s.
const HEARTBEAT: Duration = Duration::from_secs(15);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadBody {
    command: Option<Vec<String>>,
    #[serde(default)]
    wait: Wait,
}

#[derive(Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Wait {
    None,
    #[default]
    Serving,
    Drained,
}

impl Routes {
    /// On the admin socket.
    pub(super) async fn admin(self, asked: Asked) -> Answer {
        match (&asked.method, asked.path.as_str()) {
            (&Method::GET, "/v1/status") => self.status().await,
            (&Method::GET, "/v1/events") => self.events(),
            (&Method::POST, "/v1/reload") => self.reload(&asked.body),
            (&Method::POST, "/v1/restart") => self.order(Order::Restart),
            (&Method::POST, "/v1/stop") => self.order(Order::Stop),
            (_, "/v1/status" | "/v1/events") => wrong_method("GET, HEAD"),
            (_, "/v1/reload" | "/v1/restart" | "/v1/stop") => wrong_method("POST"),
            _ => self.health(asked).await,
        }
    }

    /// On a health address: nothing here changes anything.
    pub(super) async fn health(self, asked: Asked) -> Answer {
        if asked.method == Method::OPTIONS {
            return self.options(asked).await;
        }
        let Some(aspect) = self.paths.aspect(&asked.path) else {
            match (&asked.method, asked.path.as_str()) {
                (&Method::GET, "/") => return dashboard::answer(&self.paths),
                (&Method::GET, "/v1/events") => return self.events(),
                (_, "/" | "/v1/events") => return wrong_method("GET, HEAD"),
                _ => {}
            }
            return refusal(StatusCode::NOT_FOUND, &format!("there is nothing at {}", asked.path));
        };
        if asked.method != Method::GET {
            return wrong_method(if aspect == Aspect::Stream { "GET, HEAD" } else { READ_ONLY });
        }
        if aspect == Aspect::Stream {
            return match poll_interval(asked.query.as_deref()) {
                Ok(every) => self.stream(every),
                Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
            };
        }
        let Some(picture) = self.picture().await else { return gone() };
        let status = &picture.status;
        match aspect {
            Aspect::Live => json_answer(StatusCode::OK, &json!({ "live": true })),
            Aspect::Ready => said(status.ready, &json!({ "ready": status.ready, "state": status.state })),
            Aspect::Startup => said(status.started, &json!({ "started": status.started, "state": status.state })),
            Aspect::Full | Aspect::Stream => {
                let report = self.report(&picture, For::Everybody).await;
                said(report.status != Health::Unhealthy, &serde_json::to_value(&report).unwrap_or_default())
            }
        }
    }

    /// OPTIONS has the answer of GET, because HAProxy's `option httpchk` asks nothing but `OPTIONS /` and goes by the code.
    /// There it means readiness.
    async fn options(self, asked: Asked) -> Answer {
        let path = if asked.path == "/" { "/readyz".to_owned() } else { asked.path };
        if self.paths.aspect(&path) == Some(Aspect::Stream) {
            return wrong_method("GET, HEAD");
        }
        let asked = Asked { method: Method::GET, path, ..asked };
        let mut answer = Box::pin(self.health(asked)).await;
        answer.headers.push((ALLOW, HeaderValue::from_static(READ_ONLY)));
        answer
    }

    async fn status(&self) -> Answer {
        let Some(picture) = self.picture().await else { return gone() };
        json_answer(StatusCode::OK, &self.report(&picture, For::Owner).await)
    }

    async fn report(&self, picture: &Picture, reader: For) -> Report {
        let (figures, findings) = tokio::join!(Figures::of(picture), self.checks.look());
        Report::new(&self.name, picture, &figures, findings, reader)
    }

    fn reload(&self, body: &Bytes) -> Answer {
        let body = if body.is_empty() { Ok(ReloadBody::default()) } else { serde_json::from_slice(body) };
        let ReloadBody { command, wait } = match body {
            Ok(body) => body,
            Err(error) => {
                return refusal(StatusCode::BAD_REQUEST, &format!("the body is no reload request: {error}"));
            }
        };
        if command.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty)) {
            return refusal(StatusCode::BAD_REQUEST, "`command` is empty; leave it out to keep the command");
        }
        let until = if wait == Wait::Drained { Until::Drained } else { Until::Serving };
        let order = Order::Reload { command, until };
        if wait == Wait::None {
            let (reply, _) = oneshot::channel();
            let _ = self.owner.send(Notice::Asked(Question::Order { order, reply }));
            return json_answer(StatusCode::ACCEPTED, &json!({ "accepted": true }));
        }
        self.order(order)
    }

    /// The story from here on, until the verdict. The order lives with the owner: a client that goes away changes nothing.
    fn order(&self, order: Order) -> Answer {
        let (reply, verdict) = oneshot::channel();
        let story = self.story.subscribe();
        let _ = self.owner.send(Notice::Asked(Question::Order { order, reply }));
        let (lines, body) = mpsc::channel(16);
        tokio::spawn(follow_until(verdict, story, lines));
        stream_answer("application/x-ndjson", body)
    }

    fn events(&self) -> Answer {
        let (events, body) = mpsc::channel(64);
        tokio::spawn(follow(self.story.subscribe(), events));
        stream_answer("text/event-stream", body)
    }

    fn stream(self, every: Duration) -> Answer {
        let (events, body) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut ticks = interval(every);
            let mut number = 0_u64;
            loop {
                ticks.tick().await;
                let Some(picture) = self.picture().await else { return };
                let report = self.report(&picture, For::Everybody).await;
                let report = serde_json::to_string(&report).unwrap_or_default();
                number += 1;
                if events.send(Bytes::from(format!("id: {number}\nevent: health\ndata: {report}\n\n"))).await.is_err() {
                    return;
                }
            }
        });
        stream_answer("text/event-stream", body)
    }

    async fn picture(&self) -> Option<Picture> {
        let (reply, picture) = oneshot::channel();
        self.owner.send(Notice::Asked(Question::Status { reply })).ok()?;
        picture.await.ok()
    }
}

async fn follow_until(
    mut decided: oneshot::Receiver<Verdict>,
    mut story: broadcast::Receiver<Line>,
    lines: mpsc::Sender<Bytes>,
) {
    loop {
        tokio::select! {
            // What was told before the verdict comes before the verdict.
            biased;
            line = story.recv() => match line {
                Ok(line) if line.is_verdict() => {}
                Ok(line) => if lines.send(line.ndjson()).await.is_err() { return },
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            verdict_or_end = &mut decided => {
                if let Ok(decision) = verdict_or_end {
                    let _ = lines.send(Bytes::from(format!("{}\n", verdict(&decision)))).await;
                }
                return;
            }
        }
    }
}

async fn follow(mut story: broadcast::Receiver<Line>, events: mpsc::Sender<Bytes>) {
    let mut next = Bytes::from_static(b": the story from here on\n\n");
    loop {
        if events.send(next).await.is_err() {
            return;
        }
        next = tokio::select! {
            line = story.recv() => match line {
                Ok(line) => line.server_sent_event(),
                Err(RecvError::Lagged(missed)) => Bytes::from(format!(": {missed} events were missed\n\n")),
                Err(RecvError::Closed) => return,
            },
            () = sleep(HEARTBEAT) => Bytes::from_static(b": still here\n\n"),
        };
    }
}

/// `poll_interval=1.0`, in seconds.
fn poll_interval(query: Option<&str>) -> Result<Duration, String> {
    let value =
        query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("poll_interval="));
    let Some(value) = value else { return Ok(Duration::from_secs(1)) };
    match value.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("poll_interval should be a number of seconds from 0.1 to 3600, not `{value}`")),
    }
}

fn said(good: bool, value: &Value) -> Answer {
    json_answer(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, value)
}

fn gone() -> Answer {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "zdr is ending")
}

fn refusal(status: StatusCode, why: &str) -> Answer {
    json_answer(status, &json!({ "error": why }))
}

fn wrong_method(allowed: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("this path answers {allowed} only"));
    answer.headers.push((ALLOW, HeaderValue::from_static(allowed)));
    answer
}

fn json_answer(status: StatusCode, value: &impl Serialize) -> Answer {
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

fn stream_answer(kind: &'static str, body: mpsc::Receiver<Bytes>) -> Answer {
    let mut headers = common(kind);
    // nginx buffers answers of its upstreams unless told not to.
    headers.push((HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")));
    Answer { status: StatusCode::OK, headers, body: Body::Stream(body) }
}

fn common(kind: &'static str) -> Vec<(HeaderName, HeaderValue)> {
    vec![(CONTENT_TYPE, HeaderValue::from_static(kind)), (CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

#[cfg(test)]
mod tests {
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
