//! The strict load client against servers that each do one thing wrong.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::Plan;
use super::load::report::{Failure, Report};
use super::load::{Load, Phase, Shape};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ENOUGH: Duration = Duration::from_secs(10);

/// A server that treats every connection in the same way, until the test is over.
fn server(treat: impl Fn(&mut TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let treat = treat.clone();
            thread::spawn(move || treat(&mut stream.unwrap()));
        }
    });
    address
}

/// Reads one request; false when there is none.
fn request(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

fn answers(text: &'static str) -> SocketAddr {
    server(move |stream| while request(stream) && stream.write_all(text.as_bytes()).is_ok() {})
}

fn answers_once(text: &'static str) -> SocketAddr {
    server(move |stream| {
        request(stream);
        stream.write_all(text.as_bytes()).unwrap();
    })
}

/// Spends time as a slow server does.
fn take(time: Duration) {
    let (_never, wait) = mpsc::channel::<()>();
    assert!(wait.recv_timeout(time).is_err());
}

fn new_connections() -> Shape {
    Shape {
        new_connection_clients: 1,
        keep_alive_clients: 0,
        rate_per_client: Some(200.0),
        path: "/".to_owned(),
        limit: Duration::from_secs(5),
    }
}

fn kept_alive() -> Shape {
    Shape { new_connection_clients: 0, keep_alive_clients: 1, ..new_connections() }
}

/// The load on a server that is not expected to answer well, for a moment.
fn load_for_a_moment(target: SocketAddr, shape: &Shape) -> Report {
    let load = Load::start(target, shape).unwrap();
    load.wait_for_answers(u64::MAX / 2, Duration::from_millis(60));
    load.stop()
}

fn only(report: &Report, failure: Failure) {
    for tally in [&report.new_connection, &report.keep_alive] {
        assert!(tally.failures.keys().all(|found| *found == failure), "{report}");
    }
    assert!(report.failed() > 0, "{report}");
}

#[test]
fn a_server_that_answers_loses_nothing() {
    let shape = Shape { keep_alive_clients: 2, rate_per_client: None, ..new_connections() };
    let load = Load::start(answers(OK), &shape).unwrap();
    assert!(load.wait_for_answers(200, ENOUGH));
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
    assert!(report.new_connection.ok > 0 && report.keep_alive.ok > 0, "{report}");
    assert_eq!(report.keep_alive.steady.len(), report.keep_alive.ok);
}

#[test]
fn nobody_listening_is_refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    only(&load_for_a_moment(address, &new_connections()), Failure::Refused);
}

#[test]
fn closing_with_the_request_unread_is_a_reset() {
    let target = server(|stream| drop(stream.peek(&mut [0])));
    only(&load_for_a_moment(target, &new_connections()), Failure::Reset);
}

#[test]
fn closing_after_the_request_is_no_answer() {
    let target = server(|stream| assert!(request(stream)));
    only(&load_for_a_moment(target, &new_connections()), Failure::Closed);
}

#[test]
fn an_answer_that_is_cut_is_short() {
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
    ] {
        only(&load_for_a_moment(answers_once(cut), &new_connections()), Failure::Short);
    }
}

#[test]
fn no_answer_in_time_is_late() {
    let target = server(|stream| while request(stream) {});
    let shape = Shape { limit: Duration::from_millis(20), ..new_connections() };
    only(&load_for_a_moment(target, &shape), Failure::Late);
}

#[test]
fn any_status_but_2xx_is_wrong() {
    let target = answers("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno");
    only(&load_for_a_moment(target, &kept_alive()), Failure::Status);
}

#[test]
fn what_is_not_http_is_told_apart() {
    only(&load_for_a_moment(answers_once("SSH-2.0-OpenSSH\r\n\r\n"), &new_connections()), Failure::Garbage);
    let too_much = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more";
    only(&load_for_a_moment(answers(too_much), &kept_alive()), Failure::Garbage);
}

#[test]
fn chunks_trailers_and_interim_answers_are_whole_answers() {
    let text = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                2\r\nok\r\n3;x=y\r\n...\r\n0\r\nTrailer: yes\r\n\r\n";
    let load = Load::start(answers(text), &kept_alive()).unwrap();
    assert!(load.wait_for_answers(5, ENOUGH));
    assert_eq!(load.stop().failed(), 0);
}

#[test]
fn a_client_told_to_close_the_connection_takes_a_new_one() {
    let target = answers_once("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let load = Load::start(target, &kept_alive()).unwrap();
    assert!(load.wait_for_answers(5, ENOUGH));
    let report = load.stop();
    assert_eq!((report.failed(), report.keep_alive.closed_idle), (0, 0), "{report}");
}

#[test]
fn a_connection_closed_while_idle_is_no_loss() {
    let load = Load::start(answers_once(OK), &kept_alive()).unwrap();
    assert!(load.wait_for_answers(5, ENOUGH));
    assert_eq!(load.stop().failed(), 0);
}

#[test]
fn a_request_that_crosses_the_closing_of_an_idle_connection_is_sent_again_and_counted() {
    let target = answers_once(OK);
    let shape = Shape { rate_per_client: None, keep_alive_clients: 4, ..kept_alive() };
    let deadline = Instant::now() + ENOUGH;
    loop {
        // Which of the two is first is the kernel's to say, so it takes a number of tries.
        let load = Load::start(target, &shape).unwrap();
        assert!(load.wait_for_answers(500, ENOUGH));
        let report = load.stop();
        // A client that is starved of its processor may see a reset too late to excuse it.
        let excused = |failure: &Failure| *failure == Failure::Reset;
        assert!(report.keep_alive.failures.keys().all(excused), "{report}");
        if report.keep_alive.closed_idle > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "no request ever crossed a closing");
    }
}

#[test]
fn a_request_that_was_taken_in_and_dropped_is_a_loss_even_on_a_connection_kept_alive() {
    let target = server(|stream| {
        request(stream);
        stream.write_all(OK.as_bytes()).unwrap();
        request(stream);
    });
    let report = load_for_a_moment(target, &kept_alive());
    only(&report, Failure::Closed);
    assert_eq!(report.keep_alive.closed_idle, 0, "{report}");
}

#[test]
fn a_request_left_unread_for_long_is_a_loss_even_on_a_connection_kept_alive() {
    let target = server(|stream| {
        request(stream);
        stream.write_all(OK.as_bytes()).unwrap();
        drop(stream.peek(&mut [0]));
        take(Duration::from_millis(100));
    });
    let load = Load::start(target, &kept_alive()).unwrap();
    assert!(load.wait_for_answers(2, ENOUGH));
    only(&load.stop(), Failure::Reset);
}

#[test]
fn a_stall_counts_for_every_request_that_was_due_in_it() {
    let stall = Duration::from_millis(300);
    let (first, stalls) = mpsc::sync_channel(1);
    first.send(()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            request(&mut stream);
            if stalls.try_recv().is_ok() {
                take(stall);
            }
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    let load = Load::start(target, &new_connections()).unwrap();
    assert!(load.wait_for_answers(60, ENOUGH));
    let latencies = load.stop().new_connection.steady;
    // At 200 a second, some 40 requests were due in the first 200 of these 300 ms.
    let thirtieth_from_above =
        latencies.within([1.0 - 30.0 / f64::from(u32::try_from(latencies.len()).unwrap())]).unwrap()[0];
    assert!(thirtieth_from_above >= Duration::from_millis(100), "{thirtieth_from_above:?}");
}

#[test]
fn answers_during_a_reload_are_measured_apart() {
    let load = Load::start(answers(OK), &kept_alive()).unwrap();
    assert!(load.wait_for_answers(5, ENOUGH));
    load.mark(Phase::Reload);
    assert!(load.wait_for_answers(5, ENOUGH));
    load.mark(Phase::Steady);
    assert!(load.wait_for_answers(5, ENOUGH));
    let tally = load.stop().keep_alive;
    assert!(tally.steady.len() >= 8 && tally.reload.len() >= 4);
    assert_eq!(tally.steady.len() + tally.reload.len(), tally.ok);
}

#[test]
fn the_first_answer_of_a_generation_is_noted() {
    let target = answers("HTTP/1.1 200 OK\r\nX-Generation: 7\r\nContent-Length: 0\r\n\r\n");
    let started = Instant::now();
    let mut load = Load::start(target, &kept_alive()).unwrap();
    let first = load.wait_for_answer_of(|generation| generation > 6, ENOUGH).unwrap();
    assert!(first >= started && first <= Instant::now());
    assert!(load.wait_for_answers(3, ENOUGH));
    assert_eq!(load.first_answer_of(|generation| generation == 7), Some(first));
    assert_eq!(load.first_answer_of(|generation| generation == 8), None);
    let tally = load.stop().keep_alive;
    assert_eq!(tally.by_generation[&7], tally.ok);
}

fn run_arguments(plan: &Plan) -> String {
    let arguments = plan.run_arguments("/a.sock".as_ref());
    arguments.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_rehearsal_starts_a_server_as_its_user_would_and_the_sample_where_it_can() {
    let start = "run --name rehearsal --admin /a.sock";
    let mut plan = Plan::new("/zdr".into());
    let sample = "--listen 127.0.0.1:0 --ready /health -- /zdr sample-server --work 5ms";
    assert_eq!(run_arguments(&plan), format!("{start} {sample}"));
    plan.command = Some(vec!["./server".into()]);
    assert_eq!(run_arguments(&plan), format!("{start} -- ./server"));
    for option in ["--listen=:8080", "-l8080", "-l", "--capture"] {
        plan.run_options = vec![option.into()];
        assert_eq!(run_arguments(&plan), format!("{start} {option} -- ./server"));
    }
    plan.command = None;
    plan.run_options = vec!["--config".into(), "zdr.toml".into()];
    assert_eq!(run_arguments(&plan), format!("{start} --config zdr.toml"));
}
