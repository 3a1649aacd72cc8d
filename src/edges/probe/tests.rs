//! Probes of real servers, on sockets that a pretended owner hands out.

mod likes;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::config::Statuses;
use crate::edges::listeners::Target;
use crate::supervisor::Generation;

/// Only a failure waits this long.
const DEADLINE: Duration = Duration::from_secs(20);

const OLD: Instance = Instance { generation: Generation(1), number: 1 };
const NEW: Instance = Instance { generation: Generation(2), number: 1 };

/// A process with this listener as its standard input, as a server that was lent it; ended with the test.
struct Server(Child);

impl Server {
    fn on(listener: impl Into<OwnedFd>, body: &str) -> Self {
        let script = format!("import os, socket, sys, time\ns = socket.socket(fileno=0)\nkept = []\n{body}");
        let mut python = Command::new("python3");
        python.args(["-I", "-S", "-c", &script]).stdin(Stdio::from(listener.into())).stdout(Stdio::piped());
        Self(python.spawn().unwrap())
    }

    /// Waits until it has said so much.
    fn says(mut self, word: &str) -> Self {
        let mut said = vec![0; word.len()];
        std::io::Read::read_exact(self.0.stdout.as_mut().unwrap(), &mut said).unwrap();
        assert_eq!(said, word.as_bytes());
        self
    }

    fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

const ACCEPTS: &str = "print('up', flush=True)\nwhile True:\n    kept = [s.accept()[0]]";

/// Answers 200 or another status; a request that is cut off is answered with the word `cut` on standard output.
fn answers(status: u16) -> String {
    format!(
        "while True:
    c = s.accept()[0]
    head = b''
    while b'\\r\\n\\r\\n' not in head:
        more = c.recv(4096)
        if not more: break
        head += more
    else:
        c.sendall(b'HTTP/1.1 {status} Fine\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n')
    c.close()"
    )
}

/// What a probe is told, and what it has asked for.
#[derive(Clone, Default)]
struct Owned {
    reach: Arc<Mutex<Reach>>,
    roots: Vec<(Instance, i32)>,
    socket: Option<Arc<OwnedFd>>,
    address: Option<UnixAddress>,
    tcp: Option<SocketAddr>,
    shared: bool,
    /// For every question how many sockets were aimed.
    aimed: Arc<Mutex<Vec<usize>>>,
}

/// A listener on an abstract name that all generations share.
fn shared() -> (UnixListener, Owned, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().display().to_string();
    let address = UnixAddress::from_abstract_name(&name).unwrap();
    let socket = UnixListener::bind_addr(&address).unwrap();
    let owned = Owned { address: Some(address), shared: true, ..Owned::default() };
    owned.listens(&[&format!("unix:@{name}")]);
    (socket, owned, folder)
}

/// A TCP listener as the slot of the new generation.
fn slot() -> (TcpListener, Owned) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let copy = Arc::new(socket.try_clone().unwrap().into());
    let owned = Owned { tcp: Some(address), socket: Some(copy), ..Owned::default() };
    owned.listens(&[&address.to_string()]);
    (socket, owned)
}

fn listener(given: &str) -> Listener {
    Listener::parse(given, "web").unwrap()
}

impl Owned {
    fn listens(&self, given: &[&str]) {
        let listeners = given.iter().map(|given| listener(given)).enumerate().collect();
        *self.reach.lock().unwrap() = Reach { listeners, ..Reach::default() };
    }

    fn misses(&self, given: &[&str]) {
        self.reach.lock().unwrap().missing = given.iter().map(|given| listener(given)).collect();
    }

    fn aims(&self) -> Aimed {
        let target = match (&self.tcp, &self.address) {
            (Some(to), _) => Target::Tcp(TcpSocket::new_v4().unwrap(), *to),
            (None, Some(to)) => Target::Unix(to.clone()),
            (None, None) => panic!("there is nothing to aim at"),
        };
        Aimed { target, shared: self.shared }
    }

    fn watched(&self) -> Vec<Watched> {
        let listener = self.reach.lock().unwrap().listeners[0].1.clone();
        let copy = |socket: &Arc<OwnedFd>| socket.try_clone().unwrap();
        let watched = |socket| Watched { listener: listener.clone(), socket: copy(socket), shared: self.shared };
        self.socket.iter().map(watched).collect()
    }

    /// Whoever has asked may have run out of time and be gone by now.
    fn answer(&self, notice: Notice) -> Option<Event> {
        match notice {
            Notice::Happened(event) => return Some(event),
            Notice::Aim { reply, .. } => {
                *self.aimed.lock().unwrap().last_mut().unwrap() += 1;
                let _ = reply.send(Ok(self.aims()));
            }
            Notice::Unaim { .. } => self.aimed.lock().unwrap().push(0),
            Notice::Reach { reply, .. } => {
                let _ = reply.send(self.reach.lock().unwrap().clone());
            }
            Notice::Roots { reply } => {
                let _ = reply.send(self.roots.clone());
            }
            Notice::Watch { reply, .. } => {
                let _ = reply.send(self.watched());
            }
            _ => {}
        }
        None
    }

    fn probed(&self, ready: Ready, captures: bool) -> Events {
        self.probed_with_a_giver(ready, captures).0
    }

    fn probed_with_a_giver(&self, ready: Ready, captures: bool) -> (Events, Giver) {
        self.aimed.lock().unwrap().push(0);
        let (owner, notices) = mpsc::unbounded_channel();
        let readiness = Readiness {
            ready,
            interval: Duration::from_millis(10),
            limit: Duration::from_secs(5),
            statuses: Statuses::parse("200").unwrap(),
            successes: 1,
            startup_grace: Duration::from_millis(300),
        };
        let probe = Probe { instance: NEW, readiness, captures, owner };
        let (giver, taken) = mpsc::unbounded_channel();
        let probe = super::super::task::Task::start(probe.run(taken));
        (Events { owned: self.clone(), notices, _probe: probe }, giver)
    }
}

/// What a running probe tells.
struct Events {
    owned: Owned,
    notices: mpsc::UnboundedReceiver<Notice>,
    _probe: super::super::task::Task,
}

impl Events {
    async fn next(&mut self) -> Event {
        let next = async {
            loop {
                let notice = self.notices.recv().await.unwrap();
                if let Some(event) = self.owned.answer(notice) {
                    return event;
                }
            }
        };
        timeout(DEADLINE, next).await.unwrap()
    }

    /// The next answer that is no.
    async fn no(&mut self) -> String {
        match self.next().await {
            Event::NotReady { answer, .. } => answer,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for an answer with these words.
    async fn until_no(&mut self, words: &str) -> String {
        loop {
            let answer = self.no().await;
            if answer.contains(words) {
                return answer;
            }
        }
    }

    async fn until_ready(&mut self) {
        while self.next().await != (Event::Ready { instance: NEW }) {}
    }
}

#[tokio::test]
async fn on_a_shared_socket_what_the_old_generation_accepts_does_not_count_and_more_is_offered() {
    let (socket, mut owned, folder) = shared();
    let old = Server::on(socket, ACCEPTS).says("up");
    let new = Server::on(UnixListener::bind(folder.path().join("other")).unwrap(), "time.sleep(1000)");
    owned.roots = vec![(OLD, old.pid()), (NEW, new.pid())];
    let mut events = owned.probed(Ready::Tcp, false);
    let answer = events.no().await;
    let who = format!("answered by process {} (python3", old.pid());
    assert!(answer.contains(&who) && answer.contains(") of generation 1, not by the new one"), "{answer}");
    while !owned.aimed.lock().unwrap().contains(&16) {
        events.no().await;
    }
    assert_eq!(owned.aimed.lock().unwrap()[..8], [4; 8]);
}

#[tokio::test]
async fn on_a_shared_socket_a_connection_that_the_new_generation_accepts_makes_it_ready() {
    let (socket, mut owned, _folder) = shared();
    let old = Server::on(socket.try_clone().unwrap(), ACCEPTS).says("up");
    let new = Server::on(socket, ACCEPTS).says("up");
    owned.roots = vec![(OLD, old.pid()), (NEW, new.pid())];
    owned.probed(Ready::Tcp, false).until_ready().await;
}

#[tokio::test]
async fn on_a_shared_socket_only_the_answer_of_the_new_generation_is_judged() {
    let (socket, mut owned, _folder) = shared();
    let old = Server::on(socket.try_clone().unwrap(), &answers(200));
    let new = Server::on(socket, &answers(503));
    owned.roots = vec![(OLD, old.pid()), (NEW, new.pid())];
    let mut events = owned.probed(Ready::Path("/health".to_owned()), false);
    let answer = events.until_no("503").await;
    assert_eq!(answer, "last probe of /health: 503");
    // The old one answers 200 whenever it is asked to the end.
    owned.roots = vec![(OLD, new.pid()), (NEW, old.pid())];
    owned.probed(Ready::Path("/health".to_owned()), false).until_ready().await;
}

#[tokio::test]
async fn a_server_that_binds_by_itself_is_asked_when_it_listens() {
    let (socket, owned) = slot();
    let reach = owned.reach.lock().unwrap().clone();
    owned.listens(&[]);
    let mut events = owned.probed(Ready::Default, true);
    assert_eq!(events.no().await, "it has not listened on any address yet");
    *owned.reach.lock().unwrap() = reach;
    let _server = Server::on(socket, ACCEPTS).says("up");
    events.until_ready().await;
}

#[tokio::test]
async fn what_the_serving_generation_listens_on_is_waited_for_but_not_for_ever() {
    let (socket, owned) = slot();
    let _server = Server::on(socket, ACCEPTS).says("up");
    owned.misses(&["127.0.0.1:9"]);
    let begun = tokio::time::Instant::now();
    let mut events = owned.probed(Ready::Tcp, true);
    assert_eq!(events.no().await, "it does not listen on 127.0.0.1:9 yet");
    events.until_ready().await;
    assert!(begun.elapsed() >= Duration::from_millis(300));

    let mut events = owned.probed(Ready::Uptime(Duration::ZERO), true);
    events.no().await;
    owned.misses(&[]);
    events.until_ready().await;
}

#[tokio::test]
async fn a_server_that_has_closed_its_socket_is_told_the_way_out() {
    let (socket, mut owned) = slot();
    let server = Server::on(socket, "s.close()\nprint('up', flush=True)\ntime.sleep(1000)").says("up");
    owned.roots = vec![(NEW, server.pid())];
    let answer = owned.probed(Ready::Tcp, false).no().await;
    assert!(
        answer.ends_with(
            "nobody takes it out of the queue; it has closed the socket that it was lent: it does not take LISTEN_FDS; pass \
             {fd} or {port}, or let zdr capture its own with --capture always"
        ),
        "{answer}"
    );
}

#[tokio::test]
async fn a_server_that_listens_elsewhere_is_told_where() {
    let (socket, mut owned) = slot();
    let elsewhere =
        "o = socket.socket()\no.bind(('127.0.0.1', 0))\no.listen()\nprint('up', flush=True)\ntime.sleep(1000)";
    let server = Server::on(socket, elsewhere).says("up");
    owned.roots = vec![(NEW, server.pid())];
    let answer = owned.probed(Ready::Path("/".to_owned()), false).no().await;
    assert!(
        answer.starts_with("last probe of /: nobody takes it out of the queue; it listens on 127.0.0.1:"),
        "{answer}"
    );
    assert!(answer.contains(" instead; pass {fd} or {port}"), "{answer}");
}

#[tokio::test]
async fn a_wrapper_whose_child_has_the_socket_is_named_with_it() {
    let (socket, mut owned) = slot();
    let child = "python3 -I -S -c 'import time; print(\"up\", flush=True); time.sleep(1000)'";
    let script = format!("export LISTEN_PID=$$; {child}; :");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::from(OwnedFd::from(socket))).stdout(Stdio::piped());
    let shell = Server(shell.spawn().unwrap()).says("up");
    owned.roots = vec![(NEW, shell.pid())];
    let answer = owned.probed(Ready::Tcp, false).no().await;
    for pid in crate::edges::processes::tree(shell.pid()).into_iter().filter(|pid| *pid != shell.pid()) {
        let words = format!("LISTEN_PID names process {} (sh), but process {pid} (python3", shell.pid());
        assert!(answer.contains(&words) && answer.ends_with("start it with --no-listen-pid"), "{answer}");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

#[tokio::test]
async fn a_slow_server_that_has_its_socket_is_suspected_of_nothing() {
    let (socket, mut owned) = slot();
    let server = Server::on(socket, "print('up', flush=True)\ntime.sleep(1000)").says("up");
    owned.roots = vec![(NEW, server.pid())];
    let answer = owned.probed(Ready::Tcp, false).no().await;
    assert!(answer.ends_with("nobody takes it out of the queue"), "{answer}");
}
