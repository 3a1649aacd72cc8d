//! The server on real sockets: addresses the kernel chose, and clients that behave in every way but well.

use std::future::ready;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::*;

mod live;

const SOON: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(10);

/// A server on a port of its own. It is gone with the test's runtime.
struct Server {
    address: SocketAddr,
    /// The senders of the streams it has been asked for.
    streams: mpsc::UnboundedReceiver<mpsc::Sender<Bytes>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn with(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (opened, streams) = mpsc::unbounded_channel();
        let answer = move |asked| ready(answer(asked, &opened));
        Self { address, streams, task: tokio::spawn(serve(Door::Tcp(listener), limits, None, answer)) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ask(&self, request: &str) -> Reply {
        say(self.connect().await, request).await
    }

    async fn still_works(&self) {
        assert_eq!(self.ask(&get("/hello")).await.body, "hello");
    }

    /// A client whose stream has begun, and the stream's sender.
    async fn stream(&mut self) -> (TcpStream, mpsc::Sender<Bytes>) {
        let mut client = self.connect().await;
        client.write_all(get("/stream").as_bytes()).await.unwrap();
        let sender = in_time(self.streams.recv()).await.unwrap();
        sender.send(Bytes::from_static(b"first")).await.unwrap();
        assert!(until(&mut client, "first").await.starts_with("HTTP/1.1 200"));
        (client, sender)
    }
}

fn answer(asked: Asked, opened: &mpsc::UnboundedSender<mpsc::Sender<Bytes>>) -> Answer {
    assert_ne!(asked.path, "/panic", "asked for");
    let body = match asked.path.as_str() {
        "/stream" => {
            let (sender, pieces) = mpsc::channel(4);
            opened.send(sender).unwrap();
            Body::Stream(pieces)
        }
        "/echo" => Body::Whole(asked.body),
        "/large" => Body::Whole(vec![b'x'; 32 << 20].into()),
        "/asked" => Body::Whole(format!("{} {:?}", asked.method, asked.query).into()),
        _ => Body::Whole("hello".into()),
    };
    Answer { status: StatusCode::OK, headers: Vec::new(), body }
}

#[derive(Debug, PartialEq)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: zdr\r\n\r\n")
}

async fn in_time<T>(happens: impl Future<Output = T>) -> T {
    timeout(PATIENCE, happens).await.expect("it happens in time")
}

/// Everything up to and with `end`, or up to the end of the connection.
async fn until(client: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    in_time(async {
        while !text.ends_with(end.as_bytes()) || end.is_empty() {
            // A reset is an end as well.
            match client.read_u8().await {
                Ok(byte) => text.push(byte),
                Err(_) => break,
            }
        }
    })
    .await;
    String::from_utf8(text).unwrap()
}

/// One answer, as its Content-Length says.
async fn reply(client: &mut (impl AsyncRead + Unpin), has_body: bool) -> Reply {
    let head = until(client, "\r\n\r\n").await;
    let status = head.get(9..12).and_then(|status| status.parse().ok()).expect(&head);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect(&head);
    let mut body = vec![0; if has_body { length.parse().unwrap() } else { 0 }];
    in_time(client.read_exact(&mut body)).await.unwrap();
    Reply { status, head, body: String::from_utf8(body).unwrap() }
}

async fn say(mut client: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Reply {
    // A refusal may come, and the connection end, before all has been written.
    let _ = client.write_all(request.as_bytes()).await;
    reply(&mut client, true).await
}

async fn is_closed(client: &mut TcpStream) {
    assert_eq!(until(client, "").await, "");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let server = Server::with(Limits::default()).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        client.write_all(get("/asked?a=b").as_bytes()).await.unwrap();
        assert_eq!(reply(&mut client, true).await.body, "GET Some(\"a=b\")");
    }
    client.write_all(b"POST /echo HTTP/1.1\r\nhost: zdr\r\ncontent-length: 4\r\n\r\nping").await.unwrap();
    assert_eq!(reply(&mut client, true).await.body, "ping");
}

#[tokio::test]
async fn head_is_answered_like_get_without_a_body() {
    let mut server = Server::with(Limits::default()).await;
    let mut client = server.connect().await;
    client.write_all(b"HEAD /asked HTTP/1.1\r\nhost: zdr\r\n\r\n").await.unwrap();
    let head = reply(&mut client, false).await;
    assert_eq!((head.status, head.head.contains("content-length: 8")), (200, true), "{head:?}");

    client.write_all(b"HEAD /stream HTTP/1.1\r\nhost: zdr\r\n\r\n").await.unwrap();
    assert!(until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    in_time(server.streams.recv().await.unwrap().closed()).await;

    client.write_all(get("/hello").as_bytes()).await.unwrap();
    assert_eq!(reply(&mut client, true).await.body, "hello");
}

#[tokio::test]
async fn an_oversize_head_is_refused() {
    let server = Server::with(Limits::default()).await;
    let long = "x".repeat(20_000);
    assert_eq!(server.ask(&get(&format!("/{long}"))).await.status, 431);
    assert_eq!(server.ask(&format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n")).await.status, 431);
    server.still_works().await;
}

#[tokio::test]
async fn an_oversize_body_is_refused_whether_announced_or_not() {
    let server = Server::with(Limits::default()).await;
    let body = "x".repeat(200_000);
    let announced = format!("POST /echo HTTP/1.1\r\nhost: zdr\r\ncontent-length: 80000\r\n\r\n{body}");
    let chunked =
        format!("POST /echo HTTP/1.1\r\nhost: zdr\r\ntransfer-encoding: chunked\r\n\r\n30d40\r\n{body}\r\n0\r\n\r\n");
    for request in [announced, chunked] {
        let refused = server.ask(&request).await;
        assert_eq!((refused.status, refused.body.as_str()), (413, "{\"error\":\"the request body is too large\"}\n"));
    }
    server.still_works().await;
}

#[tokio::test]
async fn a_client_that_talks_on_is_heard_out_not_reset() {
    let server = Server::with(Limits::default()).await;
    let mut client = server.connect().await;
    let body = "x".repeat(8 << 20);
    let request = format!("POST /echo HTTP/1.1\r\nhost: zdr\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    in_time(client.write_all(request.as_bytes())).await.unwrap();
    assert_eq!(reply(&mut client, true).await.status, 413);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_before_it_sends_an_oversize_body() {
    let server = Server::with(Limits::default()).await;
    let asks = "POST /echo HTTP/1.1\r\nhost: zdr\r\nexpect: 100-continue\r\ncontent-length: 80000\r\n\r\n";
    assert_eq!(server.ask(asks).await.status, 413);
}

#[tokio::test]
async fn a_slow_body_is_refused() {
    let server = Server::with(Limits { body_time: SOON, ..Limits::default() }).await;
    let slow = server.ask("POST /echo HTTP/1.1\r\nhost: zdr\r\ncontent-length: 4\r\n\r\npi").await;
    assert_eq!((slow.status, slow.body.contains("{\"error\":")), (408, true), "{slow:?}");
    server.still_works().await;
}

#[tokio::test]
async fn a_half_sent_head_is_refused_when_its_time_is_up() {
    let server = Server::with(Limits { head_time: SOON, ..Limits::default() }).await;
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    assert_eq!(reply(&mut client, true).await.status, 408);
    is_closed(&mut client).await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_without_a_word() {
    let server = Server::with(Limits { head_time: SOON, ..Limits::default() }).await;
    is_closed(&mut server.connect().await).await;

    let mut idle = server.connect().await;
    idle.write_all(get("/hello").as_bytes()).await.unwrap();
    assert_eq!(reply(&mut idle, true).await.status, 200);
    is_closed(&mut idle).await;
}

#[tokio::test]
async fn garbage_is_a_bad_request() {
    let server = Server::with(Limits::default()).await;
    for garbage in [
        "\u{1}\u{2}\u{3} garbage\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        assert_eq!(server.ask(garbage).await.status, 400, "{garbage}");
    }
    let http2 = server.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!((http2.status, http2.body.contains("HTTP/1")), (400, true), "{http2:?}");
    server.still_works().await;
}

#[tokio::test]
async fn idle_clients_never_keep_a_working_one_out() {
    let server = Server::with(Limits { head_time: PATIENCE, ..Limits::default() }).await;
    let mut idle = Vec::new();
    for number in 0..500 {
        let mut client = server.connect().await;
        if number % 2 == 0 {
            client.write_all(b"POST /echo HTTP/1.1\r\ncontent-length: 4\r\n\r\nhal").await.unwrap();
        }
        idle.push(client);
    }
    timeout(Duration::from_secs(1), server.still_works()).await.expect("the answer comes at once");
    is_closed(&mut idle[0]).await;
}

#[tokio::test]
async fn whoever_has_waited_longest_makes_room() {
    let server = Server::with(Limits { connections: 2, ..Limits::default() }).await;
    let mut clients = [server.connect().await, server.connect().await];
    for number in [0, 1, 0] {
        clients[number].write_all(get("/hello").as_bytes()).await.unwrap();
        assert_eq!(reply(&mut clients[number], true).await.status, 200);
    }
    server.still_works().await;
    is_closed(&mut clients[1]).await;
    clients[0].write_all(get("/hello").as_bytes()).await.unwrap();
    assert_eq!(reply(&mut clients[0], true).await.status, 200);
}

#[tokio::test]
async fn a_burst_of_requests_is_answered_even_if_it_is_larger_than_the_crowd() {
    let server = Server::with(Limits { connections: 4, ..Limits::default() }).await;
    let mut clients = Vec::new();
    for _ in 0..64 {
        let client = std::net::TcpStream::connect(server.address).unwrap();
        io::Write::write_all(&mut &client, get("/hello").as_bytes()).unwrap();
        client.set_nonblocking(true).unwrap();
        clients.push(TcpStream::from_std(client).unwrap());
    }
    for mut client in clients {
        assert_eq!(reply(&mut client, true).await.status, 200);
    }
}

#[tokio::test]
async fn a_crowd_of_streams_is_busy_until_one_ends() {
    let mut server = Server::with(Limits { connections: 4, ..Limits::default() }).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(server.stream().await);
    }
    for _ in 0..8 {
        let refused = server.ask(&get("/hello")).await;
        assert_eq!((refused.status, refused.body.contains("{\"error\":")), (503, true), "{refused:?}");
        assert!(refused.head.contains("retry-after: 1"), "{refused:?}");
    }
    let (mut client, sender) = streams.pop().unwrap();
    drop(sender);
    assert!(until(&mut client, "0\r\n\r\n").await.ends_with("0\r\n\r\n"));
    server.still_works().await;
}

#[tokio::test]
async fn a_stream_notices_that_its_client_is_gone() {
    let mut server = Server::with(Limits::default()).await;
    let (client, sender) = server.stream().await;
    drop(client);
    in_time(sender.closed()).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let mut server = Server::with(Limits { answer_time: SOON, ..Limits::default() }).await;
    let (_client, sender) = server.stream().await;
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    in_time(async { while sender.send(piece.clone()).await.is_ok() {} }).await;
    server.still_works().await;
}

#[tokio::test]
async fn an_answer_on_its_way_is_not_cut_off_to_make_room() {
    let server = Server::with(Limits { connections: 1, ..Limits::default() }).await;
    let mut client = server.connect().await;
    client.write_all(get("/large").as_bytes()).await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    assert_eq!(server.ask(&get("/hello")).await.status, 503);
    let mut body = vec![0; 32 << 20];
    in_time(client.read_exact(&mut body)).await.unwrap();
}

#[tokio::test]
async fn a_panic_ends_only_its_own_connection() {
    let server = Server::with(Limits { connections: 1, ..Limits::default() }).await;
    let mut client = server.connect().await;
    client.write_all(get("/panic").as_bytes()).await.unwrap();
    is_closed(&mut client).await;
    server.still_works().await;
}

#[tokio::test]
async fn connections_end_with_their_server() {
    let mut server = Server::with(Limits::default()).await;
    let (_client, sender) = server.stream().await;
    server.task.abort();
    in_time(sender.closed()).await;
}

/// What a client of this process hears at a Unix door that lets in `guests`.
async fn at_a_unix_door(guests: Option<Vec<u32>>) -> Reply {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("zdr.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let answer = |asked| ready(answer(asked, &mpsc::unbounded_channel().0));
    let _server = tokio::spawn(serve_to(Door::Unix(listener), Limits::default(), guests, answer));
    say(UnixStream::connect(&path).await.unwrap(), &get("/hello")).await
}

#[tokio::test]
async fn a_unix_door_opens_for_its_guests_only() {
    let own = UnixStream::pair().unwrap().0.peer_cred().unwrap().uid();
    assert_eq!(at_a_unix_door(None).await.status, 200);
    assert_eq!(at_a_unix_door(Some(vec![own])).await.status, 200);
    let refused = at_a_unix_door(Some(vec![own + 1])).await;
    assert_eq!((refused.status, refused.body.contains("{\"error\":")), (403, true), "{refused:?}");
}
