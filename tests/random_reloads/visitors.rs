//! Clients of the listeners that come and go: each is refused, or answered to the end.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::Duration;

use crate::harness::DEADLINE;

/// The time between two visits of one.
const PAUSE: Duration = Duration::from_millis(25);

/// One at each listener.
#[derive(Debug)]
pub struct Visitors {
    over: Arc<AtomicBool>,
    lost: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<u64>>,
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

impl Visitors {
    pub fn start(addresses: &[String]) -> Self {
        let (over, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let visitor = |address: &String| {
            let (over, lost, address) = (Arc::clone(&over), Arc::clone(&lost), address.clone());
            spawn(move || visit(&address, &over, &lost))
        };
        Self { threads: addresses.iter().map(visitor).collect(), over, lost }
    }

    /// What was lost since it was asked last.
    pub fn lost(&self) -> Vec<String> {
        mem::take(&mut self.lost.lock().unwrap())
    }

    /// How many were answered, and what was lost since it was asked last.
    pub fn stop(self) -> (u64, Vec<String>) {
        self.over.store(true, Ordering::SeqCst);
        self.threads.iter().for_each(|thread| thread.thread().unpark());
        let answered = self.threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        (answered, mem::take(&mut self.lost.lock().unwrap()))
    }
}

/// How many answers there were.
fn visit(address: &str, over: &AtomicBool, lost: &Mutex<Vec<String>>) -> u64 {
    let mut answered = 0;
    while !over.load(Ordering::SeqCst) {
        match connect(address).map(|stream| stream.map(ask)) {
            Ok(None) => {}
            Ok(Some(Ok(answer))) if answer.starts_with("HTTP/1.1 200 ") => answered += 1,
            Ok(Some(Ok(answer))) => lost.lock().unwrap().push(format!("{address} answered {answer:?}")),
            Ok(Some(Err(error))) => lost.lock().unwrap().push(format!("{address} did not answer: {error}")),
            Err(error) => lost.lock().unwrap().push(format!("{address} neither took nor refused it: {error}")),
        }
        park_timeout(PAUSE);
    }
    answered
}

/// None where nobody listens.
fn connect(address: &str) -> io::Result<Option<Box<dyn Stream>>> {
    let connected = match address.strip_prefix("unix:") {
        Some(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(DEADLINE))?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }),
        None => TcpStream::connect_timeout(&address.parse().unwrap(), DEADLINE).and_then(|stream| {
            stream.set_read_timeout(Some(DEADLINE))?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        }),
    };
    match connected {
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(None),
        connected => connected.map(Some),
    }
}

fn ask(mut stream: Box<dyn Stream>) -> io::Result<String> {
    let mut answer = String::new();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
