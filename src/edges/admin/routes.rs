//! The routes: method, path, answer.
//!
//! | method | path | answer |
//! |---|---|---|
//! | GET | /v1/status | seats, listeners, connections, last verdict |
//! | POST | /v1/reload | progress as NDJSON, the verdict last; body `{"command":[..],"wait":"serving"}`, both optional |
//! | POST | /v1/restart, /v1/rollback, /v1/stop, /v1/resume | the same, without a body |
//! | POST | /v1/scale | the same; body `{"instances":4}` or `{"more":-1}` |
//! | POST | /v1/pause | the same; body `{"for_secs":30}`, which is the default |
//! | GET | /v1/events | the story as Server-Sent Events; also on a health address |
//! | GET | health paths | see `health.rs`; also on a health address |
//! | GET | / | the dashboard; also on a health address |
//! | GET | /metrics | for Prometheus; also on a health address |

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{ACCEPT, ALLOW, HeaderValue};
use hyper::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::answers::{common, gone, json_answer, refusal, said, stream_answer, wrong_method};
use super::dashboard;
use super::health::{Aspect, HealthPaths};
use super::orders::order;
use super::query::{last_event_id, on_and_on, poll_interval};
use super::report::{For, Health, Report};
use super::reporter::{Reporter, Wanted};
use super::story::{Place, Story, follow, verdict};
use super::streams::Streams;
use crate::edges::checks::Checks;
use crate::edges::figures::Subject;
use crate::edges::http_server::{Answer, Asked, Body};
use crate::edges::metrics::{Counted, Format};
use crate::edges::notice::{Notice, Order, Owner, Picture, Question};
use crate::supervisor::{Until, Verdict};

/// What every answer is made of.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    pub(super) owner: Owner,
    pub(super) story: Arc<watch::Sender<Story>>,
    pub(super) reporter: Reporter,
    pub(super) streams: Streams,
    pub(super) paths: HealthPaths,
    pub(super) name: String,
    pub(super) checks: Checks,
    pub(super) counted: Counted,
}

/// The methods of a health path.
const READ_ONLY: &str = "GET, HEAD, OPTIONS";

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
            (_, "/v1/status") => wrong_method("GET, HEAD"),
            (&Method::POST, "/v1/reload") => self.reload(&asked.body),
            (&Method::POST, path) if path.starts_with("/v1/") => match order(path, &asked.body) {
                Some(Ok(order)) => self.order(order),
                Some(Err(why)) => refusal(StatusCode::BAD_REQUEST, &why),
                None => self.health(asked).await,
            },
            (_, path) if path == "/v1/reload" || order(path, &Bytes::new()).is_some() => wrong_method("POST"),
            _ => self.health(asked).await,
        }
    }

    /// On a health address: nothing here changes anything.
    pub(super) async fn health(self, asked: Asked) -> Answer {
        let (aspect, path) = (self.paths.aspect(&asked.path), asked.path.as_str());
        let goes_on = aspect == Some(Aspect::Stream) || path == "/v1/events";
        if asked.method == Method::OPTIONS && !goes_on {
            return self.options(asked).await;
        }
        if aspect.is_none() && !matches!(path, "/" | "/metrics" | "/v1/events") {
            return refusal(StatusCode::NOT_FOUND, &format!("there is nothing at {path}"));
        }
        if asked.method != Method::GET {
            return wrong_method(if goes_on { "GET, HEAD" } else { READ_ONLY });
        }
        match (aspect, path) {
            (Some(Aspect::Stream), _) => self.stream(&asked).await,
            (Some(aspect), _) => self.aspect(aspect).await,
            (None, "/") => dashboard::answer(&self.paths),
            (None, "/metrics") => self.metrics(&asked).await,
            (None, _) => self.events(&asked),
        }
    }

    async fn aspect(&self, aspect: Aspect) -> Answer {
        if aspect == Aspect::Live {
            return json_answer(StatusCode::OK, &json!({ "live": true }));
        }
        let Some(picture) = self.picture().await else { return gone() };
        let status = &picture.status;
        match aspect {
            Aspect::Ready => said(status.ready, &json!({ "ready": status.ready, "state": status.state })),
            Aspect::Startup => said(status.started, &json!({ "started": status.started, "state": status.state })),
            Aspect::Full | Aspect::Live | Aspect::Stream => {
                let report = self.report(&picture, For::Everybody, Wanted::AtOnce).await;
                said(report.status != Health::Unhealthy, &report)
            }
        }
    }

    /// OPTIONS has the answer of GET, because HAProxy's `option httpchk` asks nothing but `OPTIONS /` and goes by the code.
    /// There it means readiness.
    async fn options(self, asked: Asked) -> Answer {
        let path = if asked.path == "/" { "/readyz".to_owned() } else { asked.path };
        let asked = Asked { method: Method::GET, path, ..asked };
        let mut answer = Box::pin(self.health(asked)).await;
        answer.headers.push((ALLOW, HeaderValue::from_static(READ_ONLY)));
        answer
    }

    async fn metrics(&self, asked: &Asked) -> Answer {
        let Some(picture) = self.picture().await else { return gone() };
        let report = self.report(&picture, For::Everybody, Wanted::Recent).await;
        let format = Format::wanted(asked.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()));
        let text = self.counted.scrape(report, format);
        Answer { status: StatusCode::OK, headers: common(format.content_type()), body: Body::Whole(text.into()) }
    }

    async fn status(&self) -> Answer {
        let Some(picture) = self.picture().await else { return gone() };
        json_answer(StatusCode::OK, &self.report(&picture, For::Owner, Wanted::Fresh).await)
    }

    pub(super) async fn report(&self, picture: &Picture, reader: For, wanted: Wanted) -> Report {
        let looks = (self.reporter.look(Subject::of(picture), wanted), self.checks.look());
        let (figures, findings) = tokio::join!(looks.0, looks.1);
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
        let story = Place::at_the_end(&self.story);
        let _ = self.owner.send(Notice::Asked(Question::Order { order, reply }));
        let (lines, body) = mpsc::channel(16);
        tokio::spawn(follow_until(verdict, story, lines));
        stream_answer("application/x-ndjson", Body::Stream(body))
    }

    fn events(&self, asked: &Asked) -> Answer {
        let wanted = last_event_id(asked).and_then(|last| Ok((last, on_and_on(asked)?)));
        match wanted {
            Ok((last, on_and_on)) => {
                let story = follow(Place::behind(&self.story, last), on_and_on);
                stream_answer("text/event-stream", Body::Live(story))
            }
            Err(why) => refusal(StatusCode::BAD_REQUEST, &why),
        }
    }

    async fn stream(&self, asked: &Asked) -> Answer {
        let every = match poll_interval(asked) {
            Ok(every) => every,
            Err(why) => return refusal(StatusCode::BAD_REQUEST, &why),
        };
        match self.streams.follow(every).await {
            Some(reports) => stream_answer("text/event-stream", Body::Live(reports)),
            None => gone(),
        }
    }

    pub(super) async fn picture(&self) -> Option<Picture> {
        let (reply, picture) = oneshot::channel();
        self.owner.send(Notice::Asked(Question::Status { reply })).ok()?;
        picture.await.ok()
    }
}

async fn follow_until(mut decided: oneshot::Receiver<Verdict>, mut story: Place, lines: mpsc::Sender<Bytes>) {
    loop {
        tokio::select! {
            // What was told before the verdict comes before the verdict.
            biased;
            line = story.next() => match line {
                Some(line) if line.is_verdict() => {}
                Some(line) => if lines.send(line.ndjson()).await.is_err() { return },
                None => return,
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
