//! Datagrams over cut-overs: a name server is asked at a fixed rate, and every question is answered exactly once.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::{Setup, Zdr, in_seat};
use crate::servers::{End, installed, server};

/// A resolver asks again after five seconds (resolv.conf(5)); whoever is later than this is lost.
const LIMIT: Duration = Duration::from_secs(4);

/// Questions a second of each client.
const RATE: u32 = 100;

/// Clients, each with a socket of its own.
const CLIENTS: u16 = 4;

fn name_server(end: End, more: &[&str]) -> Vec<String> {
    let mut command = server(&installed("python"), "dns.py", end);
    command.extend(more.iter().map(ToString::to_string));
    command
}

fn setup(command: &[String]) -> Setup {
    Setup::of(command).listen(&["udp://127.0.0.1:0"]).option("--ready", "notify").option("--bake", "0s")
}

fn address(zdr: &Zdr) -> SocketAddr {
    let status = zdr.status();
    status["listeners"][0]["address"].as_str().unwrap().strip_prefix("udp://").unwrap().parse().unwrap()
}

/// A question for the address of `n.zdr.test` (RFC 1035, section 4).
fn question(number: u16, name: u32) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [number, 0x0100, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in [name.to_string().as_str(), "zdr", "test"] {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The number of an answer and the generation that gave it, where it is a good answer to a question like ours.
fn answered(message: &[u8], question_of: impl Fn(u16) -> Option<Vec<u8>>) -> Option<(u16, u32)> {
    let number = u16::from_be_bytes(message.get(..2)?.try_into().ok()?);
    let question = question_of(number)?;
    let (echoed, record) = message.split_at_checked(question.len())?;
    let flags = [0x85, 0x00, 0, 1, 0, 1];
    let is_answer = echoed[2..8] == flags && echoed[12..] == question[12..];
    let is_address = record.len() == 16 && record[..6] == [0xc0, 0x0c, 0, 1, 0, 1] && record[12] == 10;
    let generation = u32::from_be_bytes(record.get(12..)?.try_into().ok()?) & 0x00ff_ffff;
    (is_answer && is_address).then_some((number, generation))
}

/// What became of the questions.
#[derive(Debug, Default)]
struct Tally {
    asked: usize,
    answered: usize,
    lost: Vec<u16>,
    twice: usize,
    strange: usize,
    latest: Duration,
    generations: BTreeSet<u32>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.lost.extend(other.lost);
        self.twice += other.twice;
        self.strange += other.strange;
        self.latest = self.latest.max(other.latest);
        self.generations.extend(other.generations);
    }

    fn is_perfect(&self) -> bool {
        self.asked == self.answered && self.lost.is_empty() && self.twice == 0 && self.strange == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, answered, lost, twice, strange, latest, generations } = self;
        write!(
            f,
            "{asked} asked, {answered} answered by {} generations, {} lost, {twice} answered twice, {strange} strange; \
             the latest {latest:.0?} after it was due",
            generations.len(),
            lost.len()
        )
    }
}

/// A client that asks when a question is due, whether or not the last one was answered.
struct Client {
    socket: UdpSocket,
    asked: HashMap<u16, (u32, Instant)>,
    done: BTreeSet<u16>,
    tally: Tally,
}

impl Client {
    fn of(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Connected, so that a port that nobody has is an error and not a silence.
        socket.connect(server).unwrap();
        Self { socket, asked: HashMap::new(), done: BTreeSet::new(), tally: Tally::default() }
    }

    fn ask(&mut self, due: Instant) {
        let name = u32::try_from(self.tally.asked).unwrap();
        // A run is far shorter than the 65,536 questions after which numbers come again.
        let number = u16::try_from(name).unwrap();
        self.tally.asked += 1;
        self.asked.insert(number, (name, due));
        // What cannot be sent is not answered either, and counts then.
        let _ = self.socket.send(&question(number, name));
    }

    /// Takes answers until then.
    fn listen(&mut self, until: Instant) {
        let mut buffer = [0; 512];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let asked = |number: u16| self.asked.get(&number).map(|(name, _)| question(number, *name));
            match answered(&buffer[..length], asked) {
                Some((number, generation)) if self.done.insert(number) => {
                    let late = self.asked[&number].1.elapsed();
                    self.tally.latest = self.tally.latest.max(late);
                    self.tally.answered += usize::from(late <= LIMIT);
                    self.tally.generations.insert(generation);
                }
                Some(_) => self.tally.twice += 1,
                None => self.tally.strange += 1,
            }
        }
    }

    /// Waits for what is still missing, and a little for what should not come.
    fn end(mut self) -> Tally {
        let last = Instant::now() + LIMIT;
        while self.done.len() < self.asked.len() && Instant::now() < last {
            self.listen((Instant::now() + Duration::from_millis(10)).min(last));
        }
        self.listen(Instant::now() + Duration::from_millis(50));
        self.tally.lost = self.asked.keys().filter(|number| !self.done.contains(number)).copied().collect();
        self.tally
    }
}

/// Clients at work.
struct Questions {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Questions {
    fn start(server: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |position| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut client = Client::of(server);
                let pause = Duration::from_secs(1) / RATE;
                let mut due = Instant::now() + pause / u32::from(CLIENTS) * u32::from(position);
                while !stop.load(Ordering::Relaxed) {
                    client.listen(due);
                    client.ask(due);
                    due += pause;
                }
                client.end()
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, clients }
    }

    fn end(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        self.clients.into_iter().for_each(|client| tally.add(client.join().unwrap()));
        tally
    }
}

/// Datagrams that the kernel had no room for, in all sockets of this machine (`Udp: RcvbufErrors` of /proc/net/snmp): a
/// server that is not scheduled for long enough loses them whoever started it.
fn no_room() -> u64 {
    let counters = std::fs::read_to_string("/proc/net/snmp").unwrap();
    let mut rows = counters.lines().filter(|line| line.starts_with("Udp:")).map(str::split_whitespace);
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    names.zip(values).find(|(name, _)| *name == "RcvbufErrors").and_then(|(_, value)| value.parse().ok()).unwrap()
}

#[track_caller]
fn every_question_is_answered_once(end: End, more: &[&str]) {
    let reloads: usize = if std::env::var_os("ZDR_LONG").is_some() { 1000 } else { 100 };
    let zdr = setup(&name_server(end, more)).option("--drain-idle", "100ms").start();
    let (begun, no_room_before) = (Instant::now(), no_room());
    let questions = Questions::start(address(&zdr));
    for _ in 0..reloads {
        let told = zdr.reload();
        assert_eq!(told.code, 0, "{told:?}");
    }
    zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    let tally = questions.end();
    let figures = format!("{reloads} cut-overs in {:.1?}: {tally}", begun.elapsed());
    eprintln!("{}: {figures}", thread::current().name().unwrap_or_default());
    assert!(tally.is_perfect(), "{figures}; no room for {}; {:?}", no_room() - no_room_before, tally.lost);
    assert!(tally.generations.len() > reloads / 2, "{figures}");
}

#[test]
fn a_name_server_that_ends_in_order_answers_every_question_once_over_a_hundred_cut_overs() {
    every_question_is_answered_once(End::InOrder, &[]);
}

#[test]
fn a_name_server_that_dies_at_once_answers_every_question_once_over_a_hundred_cut_overs() {
    every_question_is_answered_once(End::Abrupt, &["work", "0.001"]);
}

/// Two seconds of questions wait when the next generation takes over, and the last of them is in the server's hands, where
/// nobody sees it, when the queue is empty.
#[test]
fn what_waits_at_a_cut_over_is_answered_by_a_server_that_dies_at_once() {
    const WAITING: usize = 20;
    let slow = name_server(End::Abrupt, &["work", "0.1"]);
    let zdr = setup(&slow).start();
    let mut client = Client::of(address(&zdr));
    let begun = Instant::now();
    (0..WAITING).for_each(|_| client.ask(begun));
    let told = zdr.reload();
    assert_eq!(told.code, 0, "{told:?}");
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1500), "the reload took {took:?}, so that hardly anything waited any more");
    let tally = client.end();
    assert!(tally.is_perfect(), "{tally}");
    assert_eq!(tally.generations, BTreeSet::from([1]), "they had gone to the first generation");
    zdr.wait_until("the old one to end", |status| in_seat(status, "draining").is_none());
}
