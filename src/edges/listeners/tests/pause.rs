//! What is new waits in the kernel for a while.

use std::net::UdpSocket;
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

/// The generation that is none: only its slots are.
const PHANTOM: Generation = Generation(100);

#[test]
fn connections_wait_while_it_is_paused_and_are_accepted_by_whoever_is_lent_the_slot() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    let to = address(&listeners, "web");
    assert_eq!(listeners.pause(PHANTOM).unwrap(), Vec::<String>::new());
    let waits: Vec<SocketAddr> = crowd(to, 1).iter().map(|client| client.local_addr().unwrap()).collect();
    let client = connect(to);
    let watched = &listeners.watch(PHANTOM).unwrap()[0];
    assert_eq!(waiting(&watched.listener, watched.socket.as_fd()), 2);
    listeners.resume().unwrap();
    assert_eq!(spread(&[&first[0].socket], crowd(to, 5).len()), [5], "what comes later is served at once");
    let finisher = lend(&mut listeners, only(2), Place::Of(PHANTOM));
    assert_eq!(accept(&finisher[0], 2), [waits[0], client.local_addr().unwrap()]);
    assert_eq!(listeners.release(PHANTOM), 0);
}

#[test]
fn who_still_waits_when_the_slot_is_given_up_is_told() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    let to = address(&listeners, "web");
    listeners.pause(PHANTOM).unwrap();
    let waits = crowd(to, 3);
    assert_eq!(listeners.release(PHANTOM), waits.len());
    assert_eq!(spread(&[&first[0].socket], crowd(to, 5).len()), [5], "and nobody is sent there any more");
}

#[test]
fn what_is_steered_while_it_is_paused_is_steered_when_it_goes_on() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    let to = address(&listeners, "web");
    listeners.pause(PHANTOM).unwrap();
    let second = begin(&mut listeners, 2, &["127.0.0.1:0", "new=127.0.0.1:0"]);
    listeners.steer(&all_to(2)).unwrap();
    let waits = [connect(to), connect(address(&listeners, "new"))];
    for borrowed in first.iter().chain(&second) {
        set_nonblocking(borrowed.socket.as_fd(), true).unwrap();
        let server = TcpListener::from(borrowed.socket.try_clone().unwrap());
        assert_eq!(server.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "{}", borrowed.name);
    }
    listeners.resume().unwrap();
    assert_eq!(spread(&[&second[0].socket], crowd(to, 5).len()), [5]);
    let limit = |listeners: &Listeners| listeners.queues()[0].limit;
    assert_eq!(limit(&listeners), 4096);
    drop(waits);
}

#[test]
fn a_probe_reaches_its_generation_while_it_is_paused() {
    let (mut listeners, _) = serving(&["127.0.0.1:0"]);
    let to = address(&listeners, "web");
    listeners.pause(PHANTOM).unwrap();
    let second = lend(&mut listeners, only(2), Place::Beside);
    for _ in 0..20 {
        let probe = aimed(&mut listeners, only(2));
        let other = connect(to);
        assert_eq!(accept(&second[0], 1), [probe.local_addr().unwrap()]);
        listeners.unaim(only(2));
        drop(other);
    }
    let watched = &listeners.watch(PHANTOM).unwrap()[0];
    assert_eq!(waiting(&watched.listener, watched.socket.as_fd()), 20);
}

#[test]
fn datagrams_and_the_clients_of_a_path_wait_as_well_and_what_cannot_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let name = format!("zdr-pause-{}", std::process::id());
    let texts = ["udp=udp://127.0.0.1:0", &format!("app=unix:{}", path.display()), &format!("shared=unix:@{name}")];
    let (mut listeners, first) = serving(&texts);
    let told = listeners.pause(PHANTOM).unwrap();
    assert_eq!(told, ["listener `shared` cannot be paused, because all generations share its one socket"]);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"waits", address(&listeners, "udp")).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    listeners.resume().unwrap();
    sender.send_to(b"later", address(&listeners, "udp")).unwrap();
    let later = UnixStream::connect(&path).unwrap();
    let finisher = lend(&mut listeners, only(2), Place::Of(PHANTOM));
    for (lent, word) in [(&finisher, b"waits"), (&first, b"later")] {
        let mut buffer = [0; 8];
        let server = UdpSocket::from(lent[0].socket.try_clone().unwrap());
        let length = server.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], word);
        set_nonblocking(lent[1].socket.as_fd(), true).unwrap();
        let server = UnixListener::from(lent[1].socket.try_clone().unwrap());
        assert_eq!(std::iter::from_fn(|| server.accept().ok()).count(), 1);
    }
    drop((client, later));
}

#[test]
fn a_generation_that_takes_the_place_of_a_dead_one_while_it_is_paused_finds_what_waited_there() {
    let (mut listeners, _) = serving(&["127.0.0.1:0"]);
    let to = address(&listeners, "web");
    let before = connect(to);
    listeners.pause(PHANTOM).unwrap();
    let during = connect(to);
    assert_eq!(listeners.release(Generation(1)), 0);
    let second = lend(&mut listeners, only(2), Place::Steered);
    assert_eq!(accept(&second[0], 1), [before.local_addr().unwrap()]);
    listeners.steer(&all_to(2)).unwrap();
    listeners.resume().unwrap();
    let finisher = lend(&mut listeners, only(3), Place::Of(PHANTOM));
    assert_eq!(accept(&finisher[0], 1), [during.local_addr().unwrap()]);
}
