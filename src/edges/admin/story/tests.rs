//! The story as it is kept, and readers who come late or read slowly.

use std::future::ready;
use std::sync::Arc;

use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

use super::*;
use crate::edges::http_server::{Answer, Body, Door, Limits, serve};
use crate::supervisor::Generation;

fn told(lines: u64) -> watch::Sender<Story> {
    let (story, _) = watch::channel(Story::default());
    tell(&story, lines);
    story
}

fn tell(story: &watch::Sender<Story>, lines: u64) {
    story.send_modify(|story| {
        for _ in 0..lines {
            story.add(&News::Returned { generation: Generation(1) }, SystemTime::UNIX_EPOCH);
        }
    });
}

fn numbers(story: &Story, after: u64) -> (u64, Vec<u64>) {
    let (missed, lines) = story.after(after);
    (missed, lines.map(|line| line.number).collect())
}

#[test]
fn the_last_thousand_lines_are_kept_and_what_is_not_is_counted() {
    let story = told(1010);
    assert_eq!(numbers(&story.borrow(), 0), (10, (11..=1010).collect()));
    assert_eq!(numbers(&story.borrow(), 10), (0, (11..=1010).collect()));
    assert_eq!(numbers(&story.borrow(), 1009), (0, vec![1010]));
    assert_eq!(numbers(&story.borrow(), 1010), (0, vec![]));
    assert_eq!(numbers(&Story::default(), 0), (0, vec![]));
}

#[test]
fn lines_that_are_long_are_not_kept_for_long() {
    let mut story = Story::default();
    let output = vec!["x".repeat(100_000)];
    for _ in 0..100 {
        let news = News::Crashed {
            generation: Generation(1),
            exit: String::new(),
            then: String::new(),
            output: output.clone(),
        };
        story.add(&news, SystemTime::UNIX_EPOCH);
    }
    assert!(story.bytes <= BYTES && story.lines.len() == 10, "{} {}", story.bytes, story.lines.len());
    assert_eq!(story.bytes, story.lines.iter().map(|line| line.event.len()).sum::<usize>());
}

#[test]
fn a_line_is_an_event_and_a_line_of_json_with_its_number() {
    let story = told(1);
    let line = Place::behind(&story, 0).story.borrow().lines[0].clone();
    let event = String::from_utf8(line.event.to_vec()).unwrap();
    assert!(event.starts_with("id: 1\nevent: returned\ndata: {") && event.ends_with("}\n\n"), "{event}");
    let json: Value = serde_json::from_slice(&line.ndjson()).unwrap();
    assert_eq!((&json["id"], &json["time"]), (&1.into(), &"1970-01-01T00:00:00.000Z".into()));
    assert!(line.ndjson().ends_with(b"}\n") && !line.is_verdict());
}

#[test]
fn a_number_that_was_not_told_yet_means_all() {
    let story = told(3);
    assert_eq!((Place::behind(&story, 2).last, Place::behind(&story, 3).last), (2, 3));
    assert_eq!((Place::behind(&story, 4).last, Place::behind(&story, u64::MAX).last), (0, 0));
}

#[tokio::test]
async fn a_place_moves_on_line_by_line_and_skips_what_is_lost() {
    let story = told(2);
    let mut place = Place::at_the_end(&story);
    tell(&story, 1);
    assert_eq!(place.next().await.unwrap().number, 3);
    tell(&story, 2000);
    assert_eq!(place.next().await.unwrap().number, 1004);
    drop(story);
    assert!(place.piece().is_some());
    assert!(!place.has_more().await);
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_so_and_let_go_and_keeps_nobody_waiting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let story = Arc::new(told(1));
    let read = Arc::clone(&story);
    let answer = move |_| {
        let body = Body::Live(follow(Place::behind(&read, 0), true));
        ready(Answer { status: StatusCode::OK, headers: Vec::new(), body })
    };
    let limits = Limits { answer_time: Duration::from_secs(60), ..Limits::default() };
    let _server = tokio::spawn(serve(Door::Tcp(listener), limits, None, answer));
    // A small window, so that little is on its way to a client that does not read.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"}\n\n") {
        heard.push(client.read_u8().await.unwrap());
    }
    // More than the kernel takes for a client that does not read.
    for _ in 0..40 {
        story.send_modify(|story| {
            let output = vec!["x".repeat(200_000)];
            let news = News::Crashed { generation: Generation(1), exit: String::new(), then: String::new(), output };
            story.add(&news, SystemTime::UNIX_EPOCH);
        });
        tokio::task::yield_now().await;
    }
    let mut rest = Vec::new();
    timeout(Duration::from_secs(60), client.read_to_end(&mut rest)).await.expect("it ends").unwrap();
    let end = String::from_utf8_lossy(&rest[rest.len() - 100..]).into_owned();
    assert!(end.contains("\n\n: too slow, ") && end.ends_with("; reconnect with Last-Event-ID\n\n"), "{end}");
}
