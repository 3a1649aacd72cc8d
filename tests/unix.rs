//! Unix sockets: paths with slots of their own, and abstract names that generations share.

use std::io::{Error, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, park_timeout, spawn};
use std::time::Duration;

use crate::harness::{DEADLINE, Setup, Zdr, in_seat, wait_for};
use crate::python::server;
use crate::readiness::refused;
use crate::servers::gunicorn;

/// A Unix address in the folder of a test, as `--listen` wants it and as clients connect to it.
#[derive(Clone)]
struct Place {
    given: String,
    address: SocketAddr,
}

impl Place {
    fn path(setup: &Setup) -> Self {
        let path = setup.place("app.sock");
        Self { given: format!("unix:{path}"), address: SocketAddr::from_pathname(path).unwrap() }
    }

    fn abstract_name(setup: &Setup) -> Self {
        let name = setup.place("app");
        Self { given: format!("unix:@{name}"), address: SocketAddr::from_abstract_name(name).unwrap() }
    }

    fn both(setup: &Setup) -> [Self; 2] {
        [Self::path(setup), Self::abstract_name(setup)]
    }

    fn connect(&self) -> Result<UnixStream, Error> {
        let stream = UnixStream::connect_addr(&self.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(stream)
    }

    /// The body of the answer to a GET on a new connection. What is not a whole answer with status 200 is an error.
    fn get(&self, path: &str) -> Result<String, Error> {
        let mut stream = self.connect()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let cut = || Error::other(format!("cut answer: {answer:?}"));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if !head.starts_with("HTTP/1.1 200 ") || length != Some(body.len()) {
            return Err(cut());
        }
        Ok(body.to_owned())
    }
}

/// Clients that ask again and again, each time on a new connection, and never try again.
struct Clients {
    end: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Clients {
    fn of(place: &Place) -> Self {
        let (end, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (place, end, answers) = (place.clone(), Arc::clone(&end), Arc::clone(&answers));
            spawn(move || {
                let mut failures = Vec::new();
                while !end.load(Ordering::Relaxed) {
                    match place.get("/") {
                        Ok(_) => drop(answers.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(error.to_string()),
                    }
                    park_timeout(Duration::from_millis(2));
                }
                failures
            })
        };
        let threads = (0..4).map(client).collect();
        Self { end, answers, threads }
    }

    /// Waits until so many more were answered.
    fn wait_for(&self, more: usize) {
        let wanted = self.answers.load(Ordering::Relaxed) + more;
        wait_for("answers", || (self.answers.load(Ordering::Relaxed) >= wanted).then_some(()));
    }

    /// The failures of all of them.
    fn stop(self) -> Vec<String> {
        self.end.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn loses_nothing(setup: Setup, place: &Place, command: &[String]) {
    let zdr = setup
        .command(command)
        .listen(&[&place.given])
        .option("--ready", "/health")
        .option("--bake", "50ms")
        .option("--drain-idle", "1s")
        .start();
    let clients = Clients::of(place);
    for generation in 2..7 {
        clients.wait_for(20);
        let told = zdr.reload();
        assert_eq!(told.code, 0, "{told:?}\n{}", zdr.log());
        assert_eq!(zdr.serving(), Some(generation));
    }
    clients.wait_for(20);
    zdr.wait_until("the old ones to end", |status| in_seat(status, "draining").is_none());
    clients.wait_for(20);
    assert_eq!(clients.stop(), [""; 0], "{}", zdr.log());
}

#[test]
fn reloads_of_gunicorn_lose_nothing_on_a_path() {
    let setup = Setup::of(&[""]);
    let place = Place::path(&setup);
    loses_nothing(setup, &place, &gunicorn(&["--workers", "2"]));
}

#[test]
fn reloads_of_gunicorn_lose_nothing_on_an_abstract_name() {
    let setup = Setup::of(&[""]);
    let place = Place::abstract_name(&setup);
    loses_nothing(setup, &place, &gunicorn(&["--workers", "2"]));
}

#[test]
fn reloads_of_a_server_that_dies_at_once_lose_nothing_on_a_path() {
    let setup = Setup::of(&[""]);
    let place = Place::path(&setup);
    loses_nothing(setup, &place, &server("serve(listener(), lambda path: 'up')"));
}

fn started(setup: Setup, place: &Place, ready: Option<&str>) -> Zdr {
    let setup = setup.command(&server("serve(listener(), lambda path: 'up')")).listen(&[&place.given]);
    let setup = ready.into_iter().fold(setup, |setup, ready| setup.option("--ready", ready));
    setup.option("--ready-timeout", "3s").start()
}

#[test]
fn a_path_asks_the_new_generation_alone() {
    let bad = server("serve(listener(), lambda path: ('bad', '503 Sorry'))");
    for which in [0, 1] {
        let setup = Setup::of(&[""]);
        let place = Place::both(&setup)[which].clone();
        let zdr = started(setup, &place, Some("/health"));
        refused(&zdr, &bad, "last probe of /health: 503 (bad)");
        assert_eq!(place.get("/").unwrap(), "up");
    }
}

#[test]
fn a_url_of_our_own_path_asks_the_new_generation_alone() {
    let setup = Setup::of(&[""]);
    let place = Place::path(&setup);
    let url = format!("http://{}:/health", place.given);
    let zdr = started(setup, &place, Some(&url));
    refused(&zdr, &server("serve(listener(), lambda path: ('bad', '503 Sorry'))"), "503 (bad)");
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn a_generation_that_accepts_nothing_is_not_ready_whatever_the_old_one_accepts() {
    let hangs = server("time.sleep(1000)");
    for ready in [None, Some("tcp"), Some("/health")] {
        let setup = Setup::of(&[""]);
        let place = Place::path(&setup);
        refused(&started(setup, &place, ready), &hangs, "nobody takes it out of the queue");

        let setup = Setup::of(&[""]);
        let place = Place::abstract_name(&setup);
        let zdr = started(setup, &place, ready);
        let who = format!("answered by process {} (python3", zdr.server_pid());
        refused(&zdr, &hangs, &who);
    }
}

#[test]
fn open_connections_are_counted_and_those_with_unread_words_hold_up_the_drain() {
    for which in [0, 1] {
        let setup = Setup::of(&[""]);
        let place = Place::both(&setup)[which].clone();
        let body = "def say(path):\n    time.sleep(float(path[1:] or 0))\n    return 'up'\nserve(listener(), say)";
        let zdr = setup.command(&server(body)).listen(&[&place.given]).option("--bake", "0s").start();
        assert_eq!(zdr.status()["connections"], 0);
        let slow = {
            let place = place.clone();
            spawn(move || place.get("/0.7"))
        };
        zdr.wait_until("the open connection", |status| status["connections"] == 1 && status["in_flight"] == 1);
        assert_eq!(zdr.reload().code, 0);
        // It dies of the signal, which may not come before the answer.
        assert_eq!(slow.join().unwrap().unwrap(), "up");
        zdr.wait_until("no connection", |status| status["connections"] == 0);
    }
}

#[test]
fn what_listens_on_a_path_is_hinted_at_when_it_binds_by_itself() {
    let setup = Setup::of(&[""]);
    let place = Place::path(&setup);
    let mut zdr = setup.command(&server("time.sleep(0.4)\nsys.exit(1)")).listen(&[&place.given]).begin();
    assert_eq!(zdr.ended().code(), Some(1));
    let hint =
        format!("exited with code 1 before it was ready: if it binds {} by itself, add --capture always", place.given);
    assert!(zdr.log().contains(&hint), "{}", zdr.log());
}
