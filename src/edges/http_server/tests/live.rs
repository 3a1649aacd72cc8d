//! Answers that go on, and clients who follow them in every way but well.

use tokio::sync::watch;

use super::*;

/// A server whose `/live` tells whatever `say` is given; `/hello` and `/large` are as ever.
struct Station {
    address: SocketAddr,
    say: watch::Sender<Bytes>,
    task: JoinHandle<()>,
}

impl Station {
    async fn with(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let say = watch::Sender::new(Bytes::from_static(b"hi\n"));
        let heard = say.clone();
        let tell = move |asked: Asked| {
            let mut next = heard.subscribe();
            ready(match asked.path.as_str() {
                "/live" => {
                    let body = Body::Live(Live::new(move |mut reader: Reader| async move {
                        loop {
                            let now = next.borrow_and_update().clone();
                            if now.is_empty() {
                                return reader.farewell().await;
                            }
                            if reader.tell(&now).await.is_err() {
                                return;
                            }
                            drop(now);
                            if reader.until(next.changed()).await.is_none_or(|changed| changed.is_err()) {
                                return;
                            }
                        }
                    }));
                    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))];
                    Answer { status: StatusCode::OK, headers, body }
                }
                _ => answer(asked, &mpsc::unbounded_channel().0),
            })
        };
        Self { address, say, task: tokio::spawn(serve(Door::Tcp(listener), limits, None, tell)) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A client that has heard the first word.
    async fn follow(&self) -> TcpStream {
        let mut client = self.connect().await;
        client.write_all(get("/live").as_bytes()).await.unwrap();
        let head = until(&mut client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(until(&mut client, "\n").await, "hi\n");
        client
    }

    async fn followers(&self, many: usize) {
        in_time(async {
            while self.say.receiver_count() != many {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    async fn still_works(&self) {
        assert_eq!(say(self.connect().await, &get("/hello")).await.body, "hello");
    }
}

#[tokio::test]
async fn what_goes_on_is_framed_by_the_end_of_the_connection_alone() {
    let station = Station::with(Limits::default()).await;
    for version in ["1.0", "1.1"] {
        let mut client = station.connect().await;
        client.write_all(format!("GET /live HTTP/{version}\r\nhost: zdr\r\n\r\n").as_bytes()).await.unwrap();
        let head = until(&mut client, "\r\n\r\n").await;
        assert_eq!(head, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
        assert_eq!(until(&mut client, "\n").await, "hi\n");
    }
    let mut client = station.follow().await;
    station.say.send_replace(Bytes::from_static(b"bye\n"));
    assert_eq!(until(&mut client, "\n").await, "bye\n");
    station.say.send_replace(Bytes::new());
    is_closed(&mut client).await;
}

#[tokio::test]
async fn what_a_follower_says_besides_is_ignored() {
    let station = Station::with(Limits::default()).await;
    let mut client = station.connect().await;
    let requests = [get("/hello"), get("/live"), get("/hello")].concat();
    client.write_all(requests.as_bytes()).await.unwrap();
    assert_eq!(reply(&mut client, true).await.body, "hello");
    assert!(until(&mut client, "\r\n\r\n").await.contains("text/event-stream"));
    assert_eq!(until(&mut client, "\n").await, "hi\n");
    client.write_all(get("/hello").repeat(100).as_bytes()).await.unwrap();
    station.say.send_replace(Bytes::from_static(b"bye\n"));
    assert_eq!(until(&mut client, "\n").await, "bye\n");
    station.say.send_replace(Bytes::new());
    is_closed(&mut client).await;
}

#[tokio::test]
async fn the_head_alone_can_be_asked_for() {
    let station = Station::with(Limits::default()).await;
    let mut client = station.connect().await;
    client.write_all(b"HEAD /live HTTP/1.1\r\nhost: zdr\r\n\r\n").await.unwrap();
    let head = until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
    client.write_all(get("/hello").as_bytes()).await.unwrap();
    assert_eq!(reply(&mut client, true).await.body, "hello");
}

#[tokio::test]
async fn an_answer_that_is_still_on_its_way_is_not_cut_off_by_one_that_goes_on() {
    let station = Station::with(Limits::default()).await;
    let mut client = station.connect().await;
    client.write_all([get("/large"), get("/live")].concat().as_bytes()).await.unwrap();
    let large = reply(&mut client, true).await;
    assert_eq!(large.body.len(), 32 << 20);
    let next = until(&mut client, "\r\n\r\n").await;
    assert!(next.starts_with("HTTP/1.1 503") || next.contains("text/event-stream"), "{next}");
    station.still_works().await;
}

#[tokio::test]
async fn followers_take_no_place_from_others_and_have_their_own_limit() {
    let station = Station::with(Limits { connections: 2, live: 8, ..Limits::default() }).await;
    let mut followers = Vec::new();
    for _ in 0..8 {
        followers.push(station.follow().await);
        station.still_works().await;
    }
    let refused = say(station.connect().await, &get("/live")).await;
    assert_eq!((refused.status, refused.head.contains("retry-after: 1")), (503, true), "{refused:?}");
    station.still_works().await;
    followers.pop();
    station.followers(7).await;
    in_time(async { while say_status(&station, "/live").await != 200 {} }).await;
}

/// The status of an answer that may not end.
async fn say_status(station: &Station, path: &str) -> u16 {
    let mut client = station.connect().await;
    client.write_all(get(path).as_bytes()).await.unwrap();
    until(&mut client, "\r\n\r\n").await[9..12].parse().unwrap()
}

#[tokio::test]
async fn a_follower_that_reads_nothing_is_given_up_and_the_others_hear_everything() {
    let station = Station::with(Limits { answer_time: SOON, ..Limits::default() }).await;
    let _deaf = station.follow().await;
    let mut other = station.follow().await;
    let word = Bytes::from(vec![b'x'; 1 << 20]);
    let mut heard = vec![0; word.len()];
    in_time(async {
        while station.say.receiver_count() == 2 {
            station.say.send_replace(word.clone());
            other.read_exact(&mut heard).await.unwrap();
        }
    })
    .await;
    station.still_works().await;
}

#[tokio::test]
async fn a_follower_that_vanishes_is_forgotten() {
    let station = Station::with(Limits::default()).await;
    let follower = station.follow().await;
    station.followers(1).await;
    drop(follower);
    station.followers(0).await;
}

#[tokio::test]
async fn whoever_follows_is_let_go_with_the_server() {
    let station = Station::with(Limits::default()).await;
    let mut follower = station.follow().await;
    station.task.abort();
    is_closed(&mut follower).await;
}
