//! When the hook of a plain question runs.

use std::sync::mpsc;

use super::*;

#[test]
fn the_hook_runs_when_only_the_last_two_bytes_are_missing() {
    let (seen, has_seen) = mpsc::channel();
    let (stream, server) = server(move |mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
            if head.ends_with(b"\r\n") {
                // The hook has stopped listening when the last line comes.
                let _ = seen.send(());
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let (ran, has_run) = mpsc::channel();
    let hook: Hook = Box::new(move || {
        // All six lines are with the server, and it sits in a read for the seventh, the empty one.
        for _ in 0..6 {
            has_seen.recv_timeout(LONG).map_err(|e| e.to_string())?;
        }
        ran.send(has_seen.recv_timeout(Duration::from_millis(50))).unwrap();
        Ok(())
    });
    assert_eq!(ask_with(Stream::Tcp(stream), LONG, Some(hook)).unwrap().status, 200);
    assert_eq!(has_run.recv().unwrap(), Err(mpsc::RecvTimeoutError::Timeout), "the final CRLF came before the hook");
    assert!(has_run.recv().is_err(), "the hook ran twice");
    server.join().unwrap();
}

#[test]
fn a_hook_that_says_no_ends_the_exchange_before_it_can_be_answered() {
    let (stream, server) = server(|mut stream| read_head(&mut stream));
    let hook: Hook = Box::new(|| Err("generation 3 did not take the connection".to_owned()));
    let result = ask_with(Stream::Tcp(stream), LONG, Some(hook));
    assert_eq!(says(&result), "generation 3 did not take the connection");
    let head = server.join().unwrap();
    assert!(head.ends_with("\r\n") && !head.ends_with("\r\n\r\n"), "{head:?}");
}

#[test]
fn the_time_a_hook_takes_counts() {
    let (stream, server) = server(|mut stream| read_head(&mut stream));
    let hook: Hook = Box::new(|| {
        thread::park_timeout(SHORT);
        Ok(())
    });
    assert_eq!(says(&ask_with(Stream::Tcp(stream), SHORT, Some(hook))), "no answer within 300ms");
    server.join().unwrap();
}

#[test]
fn the_hook_runs_once_however_the_request_falls_into_the_output_buffer() {
    // The request line is followed by about 110 bytes, so these lengths end a full buffer in each
    // of the lines.
    for length in (LINE_MAX - 200..LINE_MAX - 20).step_by(5) {
        let url = Url::parse(&format!("http://host/{}", "x".repeat(length))).unwrap();
        let (stream, server) = server(|mut stream| {
            let head = read_head(&mut stream);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            head
        });
        let (ran, has_run) = mpsc::channel();
        let hook: Hook = Box::new(move || ran.send(()).map_err(|e| e.to_string()));
        let stream = Stream::Tcp(stream);
        let question = Question { url: &url, stream, limit: LONG, before_the_last_bytes: Some(hook) };
        assert_eq!(get(question).unwrap().status, 200, "{length}");
        assert_eq!(has_run.iter().count(), 1, "{length}");
        assert!(server.join().unwrap().ends_with("\r\n\r\n"), "{length}");
    }
}
