//! Addresses: who may have them, and what the sockets are like.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::chown;
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::harness::{Setup, Told, free_port, get, in_seat, sample, wait_for};
use crate::python::server;

fn on(address: &str) -> Told {
    Setup::of(&sample(&[])).flag("--quiet").listen(&[address]).output()
}

/// A listener of this test's, with or without SO_REUSEPORT.
pub fn stranger(address: SocketAddr, shares: bool) -> OwnedFd {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&fd, sockopt::ReusePort, &shares).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
    listen(&fd, Backlog::new(5).unwrap()).unwrap();
    fd
}

/// Another test may just be starting a process, which has this one's sockets until it executes something else: so the
/// holder is asked for until it is this process.
#[track_caller]
fn refused_for_us(address: &str) {
    let who = format!("cannot listen on {address}: process {} (zdr-", std::process::id());
    let told = wait_for(&who, || {
        let told = on(address);
        assert_eq!(told.code, 1, "{address}: {told:?}");
        told.error.contains(&who).then_some(told)
    });
    assert_eq!(told.error.lines().count(), 1, "{told:?}");
}

#[test]
fn an_address_that_a_stranger_has_is_refused_with_pid_and_program() {
    for shares in [false, true] {
        for (theirs, asked) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "0.0.0.0"),
            ("127.0.0.1", "[::]"),
            ("0.0.0.0", "127.0.0.1"),
            ("0.0.0.0", "[::]"),
            ("[::]", "127.0.0.1"),
            ("[::]", "[::1]"),
            ("[::1]", "[::]"),
            ("[::1]", "[::1]"),
        ] {
            let port = free_port();
            let _held = stranger(format!("{theirs}:{port}").parse().unwrap(), shares);
            let asked = format!("{asked}:{port}");
            refused_for_us(&asked);
        }
    }
}

#[test]
fn addresses_that_do_not_meet_are_not_refused() {
    let port = free_port();
    let _held = stranger(format!("127.0.0.2:{port}").parse().unwrap(), false);
    let zdr = Setup::of(&sample(&[])).listen(&[&format!("127.0.0.1:{port}"), &format!("[::1]:{port}")]).start();
    assert!(zdr.get("/").contains("generation 1,"));
}

#[test]
fn a_second_zdr_on_the_same_address_is_refused_with_the_pid_of_the_first() {
    let zdr = Setup::of(&sample(&[])).start();
    let told = on(&zdr.address().to_string());
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.error.contains("cannot listen on"), "{told:?}");
    // Its server holds the socket as well; both names lead to the same supervisor.
    let pids = [zdr.pid(), zdr.server_pid()];
    assert!(pids.iter().any(|pid| told.error.contains(&format!("process {pid} (zdr)"))), "{pids:?} {told:?}");
    assert!(zdr.get("/").contains("generation 1,"));
}

#[test]
fn a_udp_address_that_a_stranger_has_is_refused() {
    let held = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("udp://{}", held.local_addr().unwrap());
    refused_for_us(&address);
}

#[test]
fn a_low_port_without_the_right_is_refused_with_the_way_out() {
    let lowest = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    assert!(lowest.trim().parse::<u16>().unwrap() > 79, "on this machine everybody may have port 79");
    let setup = Setup::of(&["true"]).listen(&["127.0.0.1:79"]).flag("--quiet");
    chown(setup.folder(), Some(65534), Some(65534)).unwrap();
    let told =
        setup.through(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).output();
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.error.contains("127.0.0.1:79: permission denied; ports below 1024 need"), "{told:?}");
}

#[test]
fn an_address_of_another_machine_is_refused_with_the_way_out() {
    let told = on("192.0.2.1:8080");
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.error.contains("this machine has no such address") && told.error.contains("freebind"), "{told:?}");
}

#[test]
fn an_address_that_is_not_there_yet_can_be_bound_on_purpose() {
    let zdr = Setup::of(&sample(&[])).listen(&["192.0.2.1:0,freebind"]).option("--ready", "50ms").start();
    assert_eq!(zdr.address().ip().to_string(), "192.0.2.1");
}

#[test]
fn a_wildcard_answers_both_families_over_reloads() {
    let zdr = Setup::of(&sample(&[])).listen(&["[::]:0"]).option("--ready", "/health").start();
    let port = zdr.address().port();
    for generation in 1..4 {
        for ip in ["127.0.0.1", "[::1]"] {
            let (status, body) = get(format!("{ip}:{port}").parse().unwrap(), "/");
            assert!(status == 200 && body.contains(&format!("generation {generation},")), "{ip}: {status} {body}");
        }
        assert_eq!(zdr.reload().code, 0);
    }
}

#[test]
fn v6only_keeps_the_other_family_out() {
    let zdr = Setup::of(&sample(&[])).listen(&["[::]:0,v6only"]).option("--ready", "/health").start();
    let port = zdr.address().port();
    assert_eq!(get(format!("[::1]:{port}").parse().unwrap(), "/").0, 200);
    assert_eq!(get(format!("127.0.0.1:{port}").parse().unwrap(), "/").0, 0);
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn every_datagram_is_answered_over_reloads() {
    let echo = server(
        "
s = listener()
while True:
    data, client = s.recvfrom(2048)
    s.sendto(GENERATION.encode() + b' ' + data, client)
",
    );
    let zdr = Setup::of(&echo)
        .listen(&["udp://127.0.0.1:0"])
        .option("--startup-grace", "200ms")
        .option("--bake", "0s")
        .start();
    let status = zdr.status();
    let address: SocketAddr =
        status["listeners"][0]["address"].as_str().unwrap().strip_prefix("udp://").unwrap().parse().unwrap();
    let old_client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ask = |client: &UdpSocket, text: &str| {
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.send_to(text.as_bytes(), address).unwrap();
        let mut buffer = [0; 2048];
        let length =
            client.recv(&mut buffer).unwrap_or_else(|error| panic!("{text} was not answered: {error}\n{}", zdr.log()));
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (generation, said) = answer.split_once(' ').unwrap();
        assert_eq!(said, text);
        generation.parse::<u64>().unwrap()
    };
    let mut reload = zdr.client_in_background(&["reload"]);
    let (mut number, mut reloads) = (0, 1);
    while reloads < 4 {
        number += 1;
        ask(&old_client, &format!("old {number}"));
        ask(&UdpSocket::bind("127.0.0.1:0").unwrap(), &format!("new {number}"));
        if let Some(end) = reload.try_wait().unwrap() {
            assert!(end.success(), "{}", zdr.log());
            reloads += 1;
            reload = zdr.client_in_background(&["reload"]);
        }
    }
    assert!(reload.wait().unwrap().success());
    assert_eq!(ask(&old_client, "last"), 5);
    zdr.wait_until("the old ones to end", |status| in_seat(status, "draining").is_none());
}

#[test]
fn the_keys_of_a_listener_show_on_its_sockets() {
    let shows = server(
        "
import fcntl
s = listener()
flags = fcntl.fcntl(s, fcntl.F_GETFL)
s.setblocking(True)
while True:
    c, _ = s.accept()
    nodelay = c.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    defer = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
    visit(c, lambda path: '%s %s %s' % (nodelay != 0, flags & os.O_NONBLOCK != 0, defer > 0))
",
    );
    let keys = Setup::of(&shows)
        .listen(&["127.0.0.1:0,nodelay,nonblocking,backlog=77,defer-accept=2"])
        .option("--ready", "/")
        .start();
    let plain = Setup::of(&shows).option("--ready", "/").start();
    for _ in 0..2 {
        assert_eq!(keys.get("/"), "True True True");
        assert_eq!(plain.get("/"), "False False False");
        let sockets =
            Command::new("ss").args(["-Hltn", &format!("sport = {}", keys.address().port())]).output().unwrap();
        let sockets = String::from_utf8(sockets.stdout).unwrap();
        let backlogs: Vec<&str> = sockets.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
        assert!(backlogs.len() >= 2 && backlogs.iter().all(|backlog| *backlog == "77"), "{sockets}");
        assert_eq!(keys.reload().code, 0);
        assert_eq!(plain.reload().code, 0);
    }
}

#[test]
fn without_a_listener_the_port_comes_from_the_environment() {
    let port = free_port();
    let zdr = Setup::of(&sample(&[])).listen(&[]).through(&["env", &format!("PORT={port}")]).start();
    assert_eq!(zdr.address().port(), port);
    assert_eq!(get(([127, 0, 0, 1], port).into(), "/").0, 200);
}

#[test]
fn after_the_end_the_address_is_free_at_once() {
    let mut zdr = Setup::of(&sample(&[])).start();
    let address = zdr.address();
    assert_eq!(get(address, "/").0, 200);
    zdr.signal(nix::sys::signal::Signal::SIGTERM);
    zdr.ended();
    wait_for("the address", || TcpListener::bind(address).ok());
}

#[test]
fn a_server_that_shuts_its_listeners_down_harms_neither_the_next_nor_the_steering() {
    let shuts = server(
        "
s = listener()
def end(*_):
    for position in range(2):
        socket.socket(fileno=os.dup(3 + position)).shutdown(socket.SHUT_RDWR)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
serve(s, lambda path: 'hello from ' + GENERATION)
",
    );
    // The kernel chose the port of one, and not of the other: only that one is kept by its socket.
    let fixed = format!("b=127.0.0.1:{}", free_port());
    let zdr = Setup::of(&shuts)
        .listen(&["127.0.0.1:0", &fixed])
        .option("--ready", "/")
        .option("--ready-timeout", "5s")
        .option("--bake", "0s")
        .start();
    let address = zdr.address();
    for generation in 2..8 {
        let told = zdr.client(&["reload", "--wait", "drained"]);
        assert_eq!(told.code, 0, "{told:?}\n{}", zdr.log());
        for _ in 0..20 {
            assert_eq!(get(address, "/").1, format!("hello from {generation}"), "{}", zdr.log());
        }
    }
    // Steering is right as well: the old one does not answer for a new one that says no.
    let told = zdr.reload_to(&sample(&["--bad", "hang"]));
    assert_eq!(told.code, 3, "{told:?}");
    assert_eq!(get(address, "/").1, "hello from 7");
}
