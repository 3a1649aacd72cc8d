//! Real sockets on loopback, and what the kernel says of them.
#![expect(clippy::disallowed_methods, reason = "a test keeps its own deadline")]

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen};
use nix::sys::socket::{setsockopt, socket, sockopt};
use nix::sys::stat::fstat;

use super::{Accepted, Connection, SockDiag, Transport};

/// A connection to a listener of its own that has not accepted it yet.
struct Pair {
    diag: SockDiag,
    listener: TcpListener,
    client: TcpStream,
}

impl Pair {
    fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Self { diag: SockDiag::open().unwrap(), listener, client }
    }

    fn accept(&self) -> TcpStream {
        self.listener.accept().unwrap().0
    }

    fn accepted(&mut self) -> Accepted {
        let (own, peer) = (self.client.local_addr().unwrap(), self.client.peer_addr().unwrap());
        self.diag.accepted(own, peer).unwrap()
    }

    fn connection(&mut self) -> Connection {
        let address = self.listener.local_addr().unwrap();
        let connections = self.diag.connections(address).unwrap();
        assert_eq!(connections.len(), 1);
        connections[0]
    }

    fn wait_until(&mut self, condition: impl Fn(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition(self) {
            assert!(Instant::now() < deadline, "it did not come to pass in 10 seconds");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn stays_busy(&mut self, long: Duration) -> bool {
        let end = Instant::now() + long;
        let mut busy = true;
        while busy && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(1));
            busy = self.connection().busy;
        }
        busy
    }
}

fn inode(socket: impl AsFd) -> u32 {
    fstat(socket).unwrap().st_ino.try_into().unwrap()
}

fn say(mut from: &TcpStream, mut to: &TcpStream, words: &[u8]) {
    from.write_all(words).unwrap();
    to.read_exact(&mut vec![0; words.len()]).unwrap();
}

fn follow(address: &str) {
    let mut pair = Pair::at(address);
    assert_eq!(pair.accepted(), Accepted::Waiting);
    let server = pair.accept();
    assert_eq!(pair.accepted(), Accepted::By { inode: inode(&server) });
    drop(server);
    assert_eq!(pair.accepted(), Accepted::NotConnected);
}

#[test]
fn an_ipv4_connection_waits_then_has_a_holder_then_is_gone() {
    follow("127.0.0.1:0");
}

#[test]
fn an_ipv6_connection_waits_then_has_a_holder_then_is_gone() {
    follow("[::1]:0");
}

#[test]
fn an_ipv4_client_of_a_dual_stack_listener_is_found_in_either_clothes() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert!(peer.is_ipv6());
    let mut diag = SockDiag::open().unwrap();
    let by = Accepted::By { inode: inode(&server) };
    let plain = client.local_addr().unwrap();
    assert_eq!(diag.accepted(plain, client.peer_addr().unwrap()).unwrap(), by);
    assert_eq!(diag.accepted(peer, server.local_addr().unwrap()).unwrap(), by);
    let connections = diag.connections(listener.local_addr().unwrap()).unwrap();
    assert_eq!(connections.len(), 1);
    assert_eq!((connections[0].peer, connections[0].inode), (plain, inode(&server)));
    assert_eq!(connections[0].local, client.peer_addr().unwrap());
}

#[test]
fn nobody_has_accepted_what_was_never_connected() {
    let mut pair = Pair::at("127.0.0.1:0");
    let server = pair.listener.local_addr().unwrap();
    let other: SocketAddr = "127.7.7.7:1".parse().unwrap();
    assert_eq!(pair.diag.accepted(other, server).unwrap(), Accepted::NotConnected);
    let nothing: SocketAddr = "127.7.7.7:2".parse().unwrap();
    assert_eq!(pair.diag.accepted(other, nothing).unwrap(), Accepted::NotConnected);
    assert_eq!(pair.accepted(), Accepted::Waiting);
}

#[test]
fn a_listener_is_bound_with_its_queue_and_a_connection_is_not() {
    let mut pair = Pair::at("127.0.0.1:0");
    let address = pair.listener.local_addr().unwrap();
    let bound = pair.diag.bound(Transport::Tcp, address.port()).unwrap();
    assert_eq!(bound.len(), 1);
    assert_eq!((bound[0].address, bound[0].inode), (address, inode(&pair.listener)));
    assert_eq!(bound[0].waiting, 1);
    assert_eq!(bound[0].uid, nix::unistd::geteuid().as_raw());
    assert_eq!(pair.diag.bound(Transport::Udp, address.port()).unwrap(), []);
}

#[test]
fn only_an_ipv6_listener_that_leaves_ipv4_alone_says_so() {
    for only_v6 in [true, false] {
        let listener = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
        let listener = listener.unwrap();
        setsockopt(&listener, sockopt::Ipv6V6Only, &only_v6).unwrap();
        let any = SockaddrIn6::from(std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0));
        bind(std::os::fd::AsRawFd::as_raw_fd(&listener), &any).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let listener = TcpListener::from(listener);
        let port = listener.local_addr().unwrap().port();
        let bound = SockDiag::open().unwrap().bound(Transport::Tcp, port).unwrap();
        assert_eq!(bound.len(), 1);
        assert_eq!(bound[0].address, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        assert_eq!(bound[0].only_v6, only_v6);
    }
}

#[test]
fn a_udp_socket_is_bound_until_it_is_connected() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let mut diag = SockDiag::open().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"datagram", address).unwrap();
    let bound = diag.bound(Transport::Udp, address.port()).unwrap();
    assert_eq!(bound.len(), 1);
    assert_eq!((bound[0].address, bound[0].inode), (address, inode(&server)));
    assert!(bound[0].waiting > 0);
    server.connect(client.local_addr().unwrap()).unwrap();
    assert_eq!(diag.bound(Transport::Udp, address.port()).unwrap(), []);
}

#[test]
fn a_handshake_is_half_open_until_the_clients_last_word_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // With TCP_DEFER_ACCEPT the bare acknowledgement of the handshake does not count, only data does (tcp(7)).
    defer_accept(&listener);
    let address = listener.local_addr().unwrap();
    let mut diag = SockDiag::open().unwrap();
    assert!(diag.half_open(address.port()).unwrap().is_empty());
    let mut client = TcpStream::connect(address).unwrap();
    assert_eq!(diag.half_open(address.port()).unwrap().len(), 1);
    assert_eq!(diag.connections(address).unwrap(), []);
    let own = client.local_addr().unwrap();
    assert_eq!(diag.accepted(own, address).unwrap(), Accepted::Waiting);
    client.write_all(b"GET").unwrap();
    assert!(diag.half_open(address.port()).unwrap().is_empty());
    assert!(diag.connections(address).unwrap()[0].busy);
}

#[expect(unsafe_code, reason = "neither nix nor rustix knows TCP_DEFER_ACCEPT")]
fn defer_accept(listener: &TcpListener) {
    let seconds: libc::c_int = 30;
    let length = libc::socklen_t::try_from(size_of_val(&seconds)).unwrap();
    // SAFETY: the value outlives the call, and `length` is its length.
    let set = unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(listener),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            length,
        )
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

#[test]
fn a_dump_of_many_datagrams_is_whole() {
    const MANY: usize = 300;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pairs: Vec<_> =
        (0..MANY).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0)).collect();
    let connections = SockDiag::open().unwrap().connections(address).unwrap();
    assert_eq!(connections.len(), MANY);
    for (client, server) in &pairs {
        let peer = client.local_addr().unwrap();
        let found = connections.iter().find(|connection| connection.peer == peer).unwrap();
        assert_eq!((found.local, found.inode), (address, inode(server)));
    }
}

#[test]
fn a_connection_that_said_nothing_is_idle() {
    let mut pair = Pair::at("127.0.0.1:0");
    assert!(!pair.connection().busy);
    let _server = pair.accept();
    assert!(!pair.connection().busy);
}

#[test]
fn a_request_in_the_accept_queue_is_in_flight() {
    let mut pair = Pair::at("127.0.0.1:0");
    pair.client.write_all(b"GET").unwrap();
    assert_eq!(pair.connection().inode, 0);
    assert!(pair.connection().busy);
}

#[test]
fn a_first_request_is_in_flight_until_it_is_answered() {
    let mut pair = Pair::at("127.0.0.1:0");
    let server = pair.accept();
    say(&pair.client, &server, b"request");
    assert!(pair.stays_busy(Duration::from_millis(150)));
    say(&server, &pair.client, b"response");
    pair.wait_until(|pair| !pair.connection().busy);
}

#[test]
fn a_request_sent_right_after_a_response_is_in_flight() {
    let mut pair = Pair::at("127.0.0.1:0");
    let server = pair.accept();
    for _ in 0..20 {
        say(&pair.client, &server, b"request");
        say(&server, &pair.client, b"response");
    }
    say(&pair.client, &server, b"request");
    assert!(pair.stays_busy(Duration::from_millis(150)));
    say(&server, &pair.client, b"response");
    pair.wait_until(|pair| !pair.connection().busy);
}

#[test]
fn a_client_that_closes_its_half_still_waits_for_its_response() {
    let mut pair = Pair::at("127.0.0.1:0");
    let server = pair.accept();
    say(&pair.client, &server, b"request");
    pair.client.shutdown(Shutdown::Write).unwrap();
    assert!(pair.stays_busy(Duration::from_millis(150)));
    say(&server, &pair.client, b"response");
    pair.wait_until(|pair| !pair.connection().busy);
}

#[test]
fn a_client_that_leaves_without_a_word_asked_for_nothing() {
    let mut pair = Pair::at("127.0.0.1:0");
    let _server = pair.accept();
    pair.client.shutdown(Shutdown::Write).unwrap();
    assert!(!pair.connection().busy);
}

#[test]
fn a_response_that_the_client_does_not_take_is_in_flight_even_when_the_server_has_closed() {
    let mut pair = Pair::at("127.0.0.1:0");
    let mut server = pair.accept();
    say(&pair.client, &server, b"request");
    server.set_nonblocking(true).unwrap();
    while server.write(&[0; 16_384]).is_ok() {}
    assert!(pair.stays_busy(Duration::from_millis(50)));
    drop(server);
    assert_eq!(pair.connection().inode, 0);
    assert!(pair.connection().busy);
}

#[test]
fn a_server_that_has_closed_its_half_has_nothing_in_flight() {
    let mut pair = Pair::at("127.0.0.1:0");
    let server = pair.accept();
    say(&pair.client, &server, b"request");
    server.shutdown(Shutdown::Write).unwrap();
    assert!(!pair.connection().busy);
}
