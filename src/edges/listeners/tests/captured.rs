//! Listeners that several instances make by themselves, and those that are asked for later.

use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::super::make::inode;
use super::*;
use crate::address::Address;

/// What an instance has after `bind` and `listen` of a socket of its own: that one, or ours in its place.
fn listens(listeners: &mut Listeners, instance: Instance, to: SocketAddr) -> OwnedFd {
    let mut own = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let copy = own.try_clone().unwrap();
    let binding = Binding {
        address: Address::Tcp(to),
        socket: Some(copy),
        nonblocking: false,
        close_on_exec: true,
        unprivileged: false,
    };
    match listeners.bind_for(instance, &binding, |_| false).unwrap() {
        Answer::Place(ours) => own = ours.try_clone_to_owned().unwrap(),
        Answer::Done(done) => done.unwrap(),
        Answer::GoOn => unreachable!(),
    }
    drop(binding);
    match listeners.listen_for(instance, &own, 128, |_| None).unwrap() {
        Answer::Place(ours) => ours.try_clone_to_owned().unwrap(),
        Answer::Done(done) => done.map(|()| own).unwrap(),
        Answer::GoOn => unreachable!(),
    }
}

/// An address that nobody has.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Nobody is lent what nobody asked for.
fn begins(listeners: &mut Listeners, instance: Instance, place: Place, queue: QueueMode) {
    assert!(lend_from(listeners, instance, place, queue).is_empty());
}

#[test]
fn instances_that_share_a_queue_bind_the_same_address_and_get_one_socket() {
    let mut listeners = Listeners::default();
    let to = free();
    for number in [1, 2] {
        begins(&mut listeners, instance(1, number), Place::Steered, QueueMode::Shared);
    }
    let one = listens(&mut listeners, instance(1, 1), to);
    let two = listens(&mut listeners, instance(1, 2), to);
    assert_eq!(inode(&one), inode(&two));
    assert_eq!(listeners.all().count(), 1);
}

#[test]
fn instances_with_queues_of_their_own_bind_the_same_address_and_get_a_socket_each() {
    let mut listeners = Listeners::default();
    let to = free();
    for number in [1, 2] {
        begins(&mut listeners, instance(1, number), Place::Steered, QueueMode::PerInstance);
    }
    let one = listens(&mut listeners, instance(1, 1), to);
    listeners.steer(&[portion(1, &[1, 2], 1)]).unwrap();
    // It serves already, and gets its part as soon as it listens.
    let two = listens(&mut listeners, instance(1, 2), to);
    assert_ne!(inode(&one), inode(&two));
    assert_eq!(listeners.all().count(), 1);
    let counts = spread(&[&one, &two], crowd(to, 100).len());
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn only_the_instance_that_has_it_is_told_that_the_address_is_in_use() {
    let mut listeners = Listeners::default();
    let to = free();
    begins(&mut listeners, instance(1, 1), Place::Steered, QueueMode::Shared);
    begins(&mut listeners, instance(1, 2), Place::Steered, QueueMode::Shared);
    let has = listens(&mut listeners, instance(1, 1), to);
    for (number, holds) in [(1, true), (2, false)] {
        let own = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let (address, socket) = (Address::Tcp(to), Some(own));
        let binding = Binding { address, socket, nonblocking: false, close_on_exec: true, unprivileged: false };
        let answer = listeners.bind_for(instance(1, number), &binding, |_| holds).unwrap();
        match holds {
            true => assert!(matches!(answer, Answer::Done(Err(libc::EADDRINUSE)))),
            false => assert!(matches!(answer, Answer::Place(ours) if ours.as_raw_fd() != has.as_raw_fd())),
        }
    }
}

#[test]
fn a_captured_address_that_is_asked_for_keeps_its_sockets_and_is_lent() {
    let mut listeners = Listeners::default();
    let to = free();
    begins(&mut listeners, only(1), Place::Steered, QueueMode::Shared);
    let first = listens(&mut listeners, only(1), to);
    listeners.steer(&all_to(1)).unwrap();
    let waits = connect(to);
    let second = begin(&mut listeners, 2, &[&format!("api={to}")]);
    assert_eq!((second.len(), listeners.all().count()), (1, 1));
    listeners.steer(&all_to(2)).unwrap();
    assert_eq!(spread(&[&second[0].socket], crowd(to, 5).len()), [5]);
    assert_eq!(spread(&[&first], 1), [1], "who waited is served by whom it waited for");
    listeners.release(Generation(1));
    listeners.prepare(Generation(3), None).unwrap();
    assert_eq!(lend(&mut listeners, only(3), Place::Beside)[0].name, "api");
    drop(waits);
}

#[test]
fn a_captured_address_that_the_next_one_does_not_bind_is_closed_with_the_old_one() {
    let mut listeners = Listeners::default();
    let (stays, goes) = (free(), free());
    begins(&mut listeners, only(1), Place::Steered, QueueMode::Shared);
    drop((listens(&mut listeners, only(1), stays), listens(&mut listeners, only(1), goes)));
    listeners.steer(&all_to(1)).unwrap();
    begins(&mut listeners, only(2), Place::Beside, QueueMode::Shared);
    assert_eq!(listeners.reach(Generation(2)).missing.len(), 2);
    let second = listens(&mut listeners, only(2), stays);
    assert_eq!(listeners.reach(Generation(2)).missing.len(), 1);
    listeners.steer(&all_to(2)).unwrap();
    drop(connect(goes));
    listeners.release(Generation(1));
    assert!(is_refused(goes));
    assert_eq!(spread(&[&second], crowd(stays, 5).len()), [5]);
}

#[test]
fn what_was_captured_stays_open_when_all_have_died_before_they_served() {
    let mut listeners = Listeners::default();
    let to = free();
    begins(&mut listeners, only(1), Place::Steered, QueueMode::Shared);
    drop(listens(&mut listeners, only(1), to));
    listeners.release(Generation(1));
    let waits = connect(to);
    begins(&mut listeners, only(2), Place::Steered, QueueMode::Shared);
    let second = listens(&mut listeners, only(2), to);
    assert_eq!(spread(&[&second], 1), [1]);
    drop(waits);
}
