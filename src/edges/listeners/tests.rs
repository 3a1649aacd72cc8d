//! The listeners over real sockets: what each generation gets, and what nobody loses.

mod captured;
mod changes;
mod instances;
mod paths;
mod pause;
mod shares;
mod stress;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrStorage, setsockopt, sockopt};

use super::queue::set_nonblocking;
use super::*;
use crate::supervisor::{Place, Portion, QueueMode};

/// The only instance of this generation.
pub(super) fn only(generation: u64) -> Instance {
    instance(generation, 1)
}

fn instance(generation: u64, number: u32) -> Instance {
    Instance { generation: Generation(generation), number }
}

/// Everything for the first instance of this generation.
pub(super) fn all_to(generation: u64) -> [Portion; 1] {
    [portion(generation, &[1], 1)]
}

fn portion(generation: u64, instances: &[u32], weight: u32) -> Portion {
    Portion { generation: Generation(generation), instances: instances.to_vec(), weight }
}

/// Listeners as `--listen` would ask for them.
fn asked(texts: &[&str]) -> Vec<Listener> {
    texts.iter().map(|text| Listener::parse(text, "web").unwrap()).collect()
}

/// Listeners whose first generation serves.
fn serving(texts: &[&str]) -> (Listeners, Vec<Borrowed>) {
    let mut listeners = Listeners::bind(&asked(texts)).unwrap();
    let lent = lend(&mut listeners, only(1), Place::Steered);
    listeners.steer(&all_to(1)).unwrap();
    (listeners, lent)
}

/// What an instance was lent: the name, and the socket as it has it.
#[derive(Debug)]
struct Borrowed {
    name: String,
    socket: OwnedFd,
}

fn lend(listeners: &mut Listeners, instance: Instance, place: Place) -> Vec<Borrowed> {
    lend_from(listeners, instance, place, QueueMode::Shared)
}

fn lend_from(listeners: &mut Listeners, instance: Instance, place: Place, queue: QueueMode) -> Vec<Borrowed> {
    let borrowed = |lent: Lent<'_>| Borrowed {
        name: lent.listener.name.clone(),
        socket: lent.socket.try_clone_to_owned().unwrap(),
    };
    listeners.lend(instance, place, queue).unwrap().into_iter().map(borrowed).collect()
}

/// A generation that asks for these listeners, on free slots.
fn begin(listeners: &mut Listeners, generation: u64, texts: &[&str]) -> Vec<Borrowed> {
    listeners.prepare(Generation(generation), Some(&asked(texts))).unwrap();
    lend(listeners, only(generation), Place::Beside)
}

/// The address of the listener with this name, by its texts.
fn address(listeners: &Listeners, name: &str) -> SocketAddr {
    listeners.all().find(|listener| listener.name == name).unwrap().address.socket().unwrap()
}

fn connect(to: SocketAddr) -> TcpStream {
    TcpStream::connect(to).unwrap()
}

/// A connection of the probe of this instance.
fn aimed(listeners: &mut Listeners, instance: Instance) -> TcpStream {
    connected(listeners.aim(instance, 0).unwrap())
}

fn connected(aimed: Aimed) -> TcpStream {
    let Target::Tcp(socket, to) = aimed.target else { unreachable!() };
    let stream = TcpStream::from(socket.as_fd().try_clone_to_owned().unwrap());
    stream.set_nonblocking(false).unwrap();
    nix::sys::socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
    stream
}

/// Many clients, which leave nothing behind.
fn crowd(to: SocketAddr, size: usize) -> Vec<TcpStream> {
    let client = || {
        let stream = connect(to);
        // Ends by a reset, without TIME_WAIT (socket(7)).
        setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        stream
    };
    (0..size).map(|_| client()).collect()
}

/// The clients that this server accepts, as many as are to come.
fn accept(borrowed: &Borrowed, clients: usize) -> Vec<SocketAddr> {
    let server = TcpListener::from(borrowed.socket.try_clone().unwrap());
    set_nonblocking(server.as_fd(), false).unwrap();
    (0..clients).map(|_| server.accept().unwrap().1).collect()
}

/// How many connections each of these servers gets, when so many are to come to all of them.
fn spread(servers: &[&OwnedFd], clients: usize) -> Vec<usize> {
    let mut counts = vec![0; servers.len()];
    for server in servers {
        set_nonblocking(server.as_fd(), true).unwrap();
    }
    while counts.iter().sum::<usize>() < clients {
        let mut asked: Vec<PollFd<'_>> =
            servers.iter().map(|server| PollFd::new(server.as_fd(), PollFlags::POLLIN)).collect();
        assert_ne!(poll(&mut asked, PollTimeout::from(10_000_u16)).unwrap(), 0, "some never came: {counts:?}");
        for (server, count) in servers.iter().zip(&mut counts) {
            let server = TcpListener::from(server.try_clone().unwrap());
            *count += std::iter::from_fn(|| server.accept().ok()).count();
        }
    }
    counts
}

fn is_refused(to: SocketAddr) -> bool {
    TcpStream::connect(to).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The kernel drops its first packets, so that it is neither refused nor accepted.
fn is_held_back(to: SocketAddr) -> bool {
    TcpStream::connect_timeout(&to, Duration::from_millis(50))
        .is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

#[test]
fn held_connections_wait_for_their_next_try_and_are_neither_refused_nor_accepted() {
    for address in ["127.0.0.1:0", "[::]:0"] {
        let (mut listeners, lent) = serving(&[address]);
        let Target::Tcp(_, to) = listeners.aim(only(1), 0).unwrap().target else { unreachable!() };
        let before = connect(to);
        listeners.hold().unwrap();
        for _ in 0..3 {
            assert!(is_held_back(to), "{address}");
        }
        let watched = &listeners.watch(Generation(1)).unwrap()[0];
        assert_eq!(waiting(&watched.listener, watched.socket.as_fd()), 1);
        assert_eq!(accept(&lent[0], 1)[0].port(), before.local_addr().unwrap().port());
    }
}
