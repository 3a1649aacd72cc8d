//! Questions to real servers on loopback, good ones and bad ones. What TLS adds is in `tls.rs`'
//! tests.
#![expect(clippy::disallowed_methods, reason = "a test keeps its own deadline")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::*;

mod hook;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(20);
/// For tests that wait for the limit.
const SHORT: Duration = Duration::from_millis(300);
/// How late the limit may be on a busy machine; without the limit these servers go on for longer.
const LATE: Duration = Duration::from_secs(1);

/// A server for one connection. What it returns is what its test wants to know.
fn server<T: Send + 'static>(serve: impl FnOnce(TcpStream) -> T + Send + 'static) -> (TcpStream, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (stream, thread::spawn(move || serve(listener.accept().unwrap().0)))
}

fn ask_with(stream: Stream, limit: Duration, hook: Option<Hook>) -> Result<Answer, HttpError> {
    let url = Url::parse("http://app.example:8080/health?deep=1").unwrap();
    get(Question { url: &url, stream, limit, before_the_last_bytes: hook })
}

/// Asks a server that reads the request and then sends these bytes and hangs up.
fn ask_for(bytes: impl Into<Vec<u8>>) -> Result<Answer, HttpError> {
    let bytes = bytes.into();
    let (stream, server) = server(move |mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(&bytes);
    });
    let result = ask_with(Stream::Tcp(stream), LONG, None);
    server.join().unwrap();
    result
}

/// Asks a server that sends `first` and then `again` every few milliseconds for as long as anyone
/// listens.
fn ask_a_slow_one(first: &'static [u8], again: &'static [u8]) -> (Result<Answer, HttpError>, Duration) {
    let (stream, server) = server(move |mut stream| {
        read_head(&mut stream);
        stream.write_all(first).unwrap();
        while !again.is_empty() && stream.write_all(again).is_ok() {
            thread::park_timeout(Duration::from_millis(5));
        }
        let _ = stream.read(&mut [0]);
    });
    let start = Instant::now();
    let result = ask_with(Stream::Tcp(stream), SHORT, None);
    let took = start.elapsed();
    server.join().unwrap();
    (result, took)
}

/// The request's head, as far as it came.
fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn says(result: &Result<Answer, HttpError>) -> String {
    result.as_ref().unwrap_err().to_string()
}

fn is_on_time(took: Duration) -> bool {
    took >= SHORT && took <= SHORT + LATE
}

#[test]
fn an_answer_is_its_status_and_the_first_line_of_its_body() {
    let answer = ask_for("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\n fine\nxx").unwrap();
    assert_eq!(answer, Answer { status: 200, body: "fine".to_owned() });
}

#[test]
fn the_request_names_us_and_asks_to_close() {
    let (stream, server) = server(|mut stream| {
        let head = read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        head
    });
    assert_eq!(ask_with(Stream::Tcp(stream), LONG, None).unwrap().status, 204);
    let head = server.join().unwrap();
    let mut lines: Vec<_> = head.trim_end().split("\r\n").collect();
    lines[1..].sort_unstable();
    let agent = concat!("user-agent: zdr/", env!("CARGO_PKG_VERSION"));
    let headers = ["accept-encoding: identity", "accept: */*", "connection: close", "host: app.example:8080", agent];
    assert_eq!(lines[0], "GET /health?deep=1 HTTP/1.1");
    assert_eq!(lines[1..], headers);
}

#[test]
fn a_redirect_is_not_followed() {
    let answer = ask_for("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(answer.unwrap().status, 302);
    let answer = ask_for("HTTP/1.1 301 Moved\r\nLocation: /there\r\nContent-Length: 5\r\n\r\nthere");
    assert_eq!(answer.unwrap(), Answer { status: 301, body: "there".to_owned() });
}

#[test]
fn a_503_is_an_answer() {
    let answer = ask_for("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\n\r\nloading");
    assert_eq!(answer.unwrap(), Answer { status: 503, body: "loading".to_owned() });
}

#[test]
fn an_http_1_0_answer_ends_with_the_connection() {
    let answer = ask_for("HTTP/1.0 503 Service Unavailable\r\n\r\nstill loading");
    assert_eq!(answer.unwrap(), Answer { status: 503, body: "still loading".to_owned() });
}

#[test]
fn an_early_hint_is_not_the_answer() {
    let answer = ask_for("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(answer.unwrap().status, 200);
}

#[test]
fn a_chunked_body_is_put_together() {
    let answer = ask_for("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n");
    assert_eq!(answer.unwrap().body, "fine");
}

#[test]
fn a_body_that_breaks_off_or_is_garbage_does_not_undo_the_answer() {
    let answer = ask_for("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    assert_eq!(answer.unwrap(), Answer { status: 200, body: "half".to_owned() });
    let answer = ask_for("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot chunks at all");
    assert_eq!(answer.unwrap().status, 200);
}

#[test]
fn a_unix_socket_is_asked_the_same_way() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let head = read_head(&mut theirs);
        theirs.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        head
    });
    let url = Url::parse("http://unix:/run/x.sock:/ready").unwrap();
    let question = Question { url: &url, stream: Stream::Unix(ours), limit: LONG, before_the_last_bytes: None };
    assert_eq!(get(question).unwrap().status, 200);
    let head = server.join().unwrap();
    assert!(head.starts_with("GET /ready HTTP/1.1\r\n") && head.contains("host: localhost\r\n"), "{head}");
}

#[test]
fn a_peer_that_hangs_up_has_not_answered() {
    assert_eq!(says(&ask_for("")), "connection closed before an answer");
    assert_eq!(says(&ask_for("HTTP/1.1 200 OK\r\nContent-Le")), "connection closed before an answer");
}

#[test]
fn a_reset_is_called_a_reset() {
    // Closing with the request unread resets the connection (RFC 2525, 2.17); so does a listener
    // nobody accepts from.
    let (stream, server) = server(|mut stream| stream.read_exact(&mut [0]).unwrap());
    assert_eq!(says(&ask_with(Stream::Tcp(stream), LONG, None)), "connection reset");
    server.join().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    drop(listener);
    assert_eq!(says(&ask_with(Stream::Tcp(stream), LONG, None)), "connection reset");
}

#[test]
fn garbage_is_not_an_answer() {
    let table = [
        ("SSH-2.0-OpenSSH_9.9\r\n", "not an HTTP answer: invalid HTTP version"),
        ("\x15\x03\x01\0\x02\x02\x46", "not an HTTP answer: invalid HTTP version"),
        ("HTTP/2 200\r\n\r\n", "not an HTTP answer: invalid HTTP version"),
        ("HTTP/1.1 abc\r\n\r\n", "not an HTTP answer: invalid response status"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "not an HTTP answer: invalid header name"),
    ];
    for (bytes, wanted) in table {
        let error = says(&ask_for(bytes));
        assert_eq!(error, wanted, "{bytes:?}");
    }
}

#[test]
fn a_head_that_never_ends_is_refused_by_its_size() {
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_MAX));
    assert_eq!(says(&ask_for(endless)), "answer head larger than 16 KiB");
    let whole = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(HEAD_MAX - 100));
    assert_eq!(ask_for(whole).unwrap().status, 200);
}

#[test]
fn a_path_too_long_to_send_is_said_to_be() {
    let url = Url::parse(&format!("http://host/{}", "x".repeat(LINE_MAX))).unwrap();
    let (stream, server) = server(|mut stream| read_head(&mut stream));
    let question = Question { url: &url, stream: Stream::Tcp(stream), limit: LONG, before_the_last_bytes: None };
    assert_eq!(get(question).unwrap_err().to_string(), "cannot be asked over HTTP: the path is longer than 4 KiB");
    assert_eq!(server.join().unwrap(), "");
}

#[test]
fn a_silent_peer_is_given_up_at_the_limit() {
    let (result, took) = ask_a_slow_one(b"", b"");
    assert_eq!(says(&result), "no answer within 300ms");
    assert!(is_on_time(took), "{took:?}");
}

#[test]
fn a_dripping_head_is_given_up_at_the_limit() {
    let (result, took) = ask_a_slow_one(b"HTTP/1.1 200 OK\r\nX: ", b"x");
    assert_eq!(says(&result), "answer head not complete within 300ms");
    assert!(is_on_time(took), "{took:?}");
}

#[test]
fn a_dripping_body_is_read_until_the_limit_and_its_head_counts() {
    let (result, took) = ask_a_slow_one(b"HTTP/1.1 200 OK\r\n\r\n", b"x");
    let answer = result.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.starts_with("xxx"), "{answer:?}");
    assert!(is_on_time(took), "{took:?}");
}

#[test]
fn an_endless_body_is_hung_up_on() {
    let (stream, server) = server(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 8192]).is_ok() {}
    });
    let answer = ask_with(Stream::Tcp(stream), LONG, None).unwrap();
    assert_eq!(answer, Answer { status: 200, body: "x".repeat(200) });
    // Ends only because its write fails.
    server.join().unwrap();
}

#[test]
fn the_connection_is_closed_when_the_answer_is_there() {
    let (stream, server) = server(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap()
    });
    ask_with(Stream::Tcp(stream), LONG, None).unwrap();
    assert_eq!(server.join().unwrap(), 0);
}

#[test]
fn a_limit_of_nothing_is_over_at_once() {
    let (stream, server) = server(|mut stream| read_head(&mut stream));
    assert_eq!(says(&ask_with(Stream::Tcp(stream), Duration::ZERO, None)), "no answer within 0ns");
    server.join().unwrap();
}

#[test]
fn a_nonblocking_stream_is_waited_on() {
    let (stream, server) = server(|mut stream| {
        read_head(&mut stream);
        thread::park_timeout(Duration::from_millis(20));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    stream.set_nonblocking(true).unwrap();
    assert_eq!(ask_with(Stream::Tcp(stream), LONG, None).unwrap().status, 200);
    server.join().unwrap();
}

#[test]
fn a_proxy_in_the_environment_is_not_asked() {
    // In a child, because the environment is the process's. Its question goes to the right server
    // or fails.
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.arg("the_request_names_us_and_asks_to_close");
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, "http://127.0.0.1:1");
    }
    let output = child.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(settings().proxy().is_none());
}
