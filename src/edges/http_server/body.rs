//! Request bodies, received whole and within limits; answer bodies, whole or piece by piece.
//!
//! Never holds more of a request than the limit, and never holds an answer's receiver longer than its client.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::crowd::InProgress;
use super::{Answer, Body, Limits};

/// The whole body, or what to answer instead.
pub(super) async fn whole(incoming: Incoming, limits: Limits) -> Result<Bytes, Answer> {
    // A length that is announced is refused before hyper invites the rest with `100 Continue`.
    if incoming.size_hint().lower() > limits.body_bytes as u64 {
        return Err(too_large());
    }
    match timeout(limits.body_time, within(incoming, limits.body_bytes)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Answer::error(StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time")),
    }
}

async fn within(mut incoming: Incoming, most: usize) -> Result<Bytes, Answer> {
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else {
            return Err(Answer::error(StatusCode::BAD_REQUEST, "the request body ended early or is malformed"));
        };
        // Trailers are not asked for and not kept.
        let Ok(piece) = frame.into_data() else { continue };
        if body.len() + piece.len() > most {
            return Err(too_large());
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

fn too_large() -> Answer {
    Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "the request body is too large")
}

/// An answer's body on its way out; the request is in progress until hyper has taken all of it.
pub(super) struct Outgoing {
    rest: Body,
    /// Held for its drop. None for a refusal: such a connection may be closed at any time.
    _in_progress: Option<InProgress>,
}

impl Outgoing {
    pub(super) fn new(rest: Body, in_progress: Option<InProgress>) -> Self {
        Self { rest, _in_progress: in_progress }
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.rest {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Stream(pieces) => pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
            // Only its head is asked for.
            Body::Live(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.rest, Body::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Stream(_) | Body::Live(_) => SizeHint::default(),
        }
    }
}
