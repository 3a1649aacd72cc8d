//! What it costs zdr to be looked at: by a thousand readers of a stream, and by one who wants ten thousand connections counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use crate::harness::{DEADLINE, Setup, get, sample};
use crate::many::{allow_files, kept_connections};
use crate::resident_kib;

const READERS: u32 = 1000;

/// For so long the readers read.
const TIME: Duration = Duration::from_secs(10);

/// The binary in `$ZDR_RELEASE_BINARY`, if one is given.
fn measured(setup: Setup) -> Setup {
    let release = std::env::var("ZDR_RELEASE_BINARY").ok();
    release.iter().fold(setup, |setup, binary| setup.binary(binary))
}

fn read_events(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /health/$stream?poll_interval=1 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Everything that has come by now.
fn take(stream: &mut TcpStream) -> usize {
    let mut buffer = [0; 16 * 1024];
    std::iter::from_fn(|| stream.read(&mut buffer).ok().filter(|length| *length > 0)).sum()
}

fn health_address(log: &str) -> SocketAddr {
    let line = log.lines().find(|line| line.contains("answering health questions")).unwrap();
    line.split_once("address=").unwrap().1.trim().parse().unwrap()
}

#[test]
fn streams_for_a_thousand_readers() {
    allow_files(READERS as usize);
    let zdr = measured(Setup::of(&sample(&[])).option("--health", "127.0.0.1:0")).start();
    let address = health_address(&zdr.log());
    assert_eq!(get(address, "/health").0, 200);
    let (cpu, before) = (Cpu::of(zdr.pid()), resident_kib(zdr.pid()));
    let mut readers: Vec<TcpStream> = (0..READERS).map(|_| read_events(address)).collect();
    park_timeout(Duration::from_secs(2));
    for reader in &mut readers {
        take(reader);
    }
    let (used, begun) = (cpu.used(), Instant::now());
    let mut bytes = 0;
    while begun.elapsed() < TIME {
        park_timeout(Duration::from_millis(500));
        bytes += readers.iter_mut().map(take).sum::<usize>();
    }
    let share = (cpu.used() - used).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let after = resident_kib(zdr.pid());
    eprintln!(
        "{READERS} readers at 1 s: {} KiB resident more ({after} in all), {share:.2} % of a processor, {} bytes for each reader",
        after - before,
        bytes / READERS as usize
    );
    assert!(bytes > READERS as usize * 8 * 500, "{bytes}");
}

#[test]
fn streams_and_counting_of_ten_thousand_connections() {
    const CONNECTIONS: usize = 10_000;
    const LOOKS: u32 = 20;
    let zdr = measured(Setup::of(&sample(&[])).option("--limit", "nofile=15000")).start();
    let cpu = Cpu::of(zdr.pid());
    let ask = || {
        let begun = (cpu.used(), Instant::now());
        let answer = zdr.ask_raw("GET /v1/status HTTP/1.1\r\nHost: z\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        (cpu.used() - begun.0, begun.1.elapsed())
    };
    let idle: Vec<Duration> = (0..LOOKS).map(|_| ask().0).collect();
    let _kept = kept_connections(zdr.address(), CONNECTIONS);
    let looks: Vec<(Duration, Duration)> = (0..LOOKS).map(|_| ask()).collect();
    let (used, took): (Vec<_>, Vec<_>) = looks.into_iter().unzip();
    eprintln!(
        "a look: {} of a processor with no connections, {} with {CONNECTIONS}, which takes {}",
        crate::range(&idle),
        crate::range(&used),
        crate::range(&took)
    );
}

/// The processor time that a process has used, with all its threads, also those that have ended.
struct Cpu(ClockId);

impl Cpu {
    fn of(pid: i32) -> Self {
        Self(clock_getcpuclockid(Pid::from_raw(pid)).unwrap())
    }

    fn used(&self) -> Duration {
        self.0.now().unwrap().into()
    }
}
