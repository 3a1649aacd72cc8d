//! Listeners that are added, removed, renamed and changed.

use nix::sys::socket::getsockopt;

use super::super::make::inode;
use super::super::queue::{backlog, is_nonblocking};
use super::*;
use crate::edges::kernel::sockopt::number;

#[test]
fn an_added_listener_is_served_by_the_generation_that_asked_for_it() {
    let (mut listeners, _) = serving(&["127.0.0.1:0"]);
    let lent = begin(&mut listeners, 2, &["new=127.0.0.1:0", "127.0.0.1:0"]);
    let names: Vec<&str> = lent.iter().map(|lent| lent.name.as_str()).collect();
    assert_eq!(names, ["new", "web"]);
    let to = address(&listeners, "new");
    // Nobody is steered to it yet, and it has this listener to itself.
    let early = connect(to);
    listeners.steer(&all_to(2)).unwrap();
    let late = connect(to);
    assert_eq!(accept(&lent[0], 2), [early.local_addr().unwrap(), late.local_addr().unwrap()]);
    assert_eq!(listeners.front().unwrap().unwrap().listener.name, "new", "the order is that of the front");
}

#[test]
fn who_comes_to_an_added_listener_before_it_is_lent_waits_for_its_generation() {
    let (mut listeners, _) = serving(&["127.0.0.1:0"]);
    listeners.prepare(Generation(2), Some(&asked(&["127.0.0.1:0", "new=127.0.0.1:0"]))).unwrap();
    let client = connect(address(&listeners, "new"));
    let lent = lend(&mut listeners, only(2), Place::Beside);
    assert_eq!(accept(&lent[1], 1), [client.local_addr().unwrap()]);
}

#[test]
fn an_added_listener_is_closed_when_its_generation_fails() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    drop(begin(&mut listeners, 2, &["127.0.0.1:0", "new=127.0.0.1:0"]));
    let (web, new) = (address(&listeners, "web"), address(&listeners, "new"));
    listeners.release(Generation(2));
    assert!(is_refused(new));
    let client = connect(web);
    assert_eq!(accept(&first[0], 1), [client.local_addr().unwrap()]);
}

#[test]
fn a_removed_listener_is_served_by_the_old_generation_and_closed_with_it() {
    let (mut listeners, first) = serving(&["127.0.0.1:0", "old=127.0.0.1:0"]);
    let (web, old) = (address(&listeners, "web"), address(&listeners, "old"));
    let second = begin(&mut listeners, 2, &["127.0.0.1:0"]);
    assert_eq!(second.len(), 1);
    listeners.steer(&all_to(2)).unwrap();
    let client = connect(old);
    assert_eq!(accept(&first[1], 1), [client.local_addr().unwrap()]);
    drop(first);
    listeners.release(Generation(1));
    assert!(is_refused(old));
    assert_eq!(spread(&[&second[0].socket], crowd(web, 10).len()), [10]);
}

#[test]
fn a_failed_reload_does_not_take_a_listener_away() {
    let (mut listeners, first) = serving(&["127.0.0.1:0", "old=127.0.0.1:0"]);
    begin(&mut listeners, 2, &["127.0.0.1:0"]);
    listeners.release(Generation(2));
    let client = connect(address(&listeners, "old"));
    assert_eq!(accept(&first[1], 1), [client.local_addr().unwrap()]);
    assert_eq!(lend(&mut listeners, only(3), Place::Beside).len(), 2, "the next one has it as well");
}

#[test]
fn what_nobody_else_serves_is_held_back_when_the_old_generation_retires_and_given_back_if_it_returns() {
    let (mut listeners, first) = serving(&["127.0.0.1:0", "old=127.0.0.1:0"]);
    let (web, old) = (address(&listeners, "web"), address(&listeners, "old"));
    let second = begin(&mut listeners, 2, &["127.0.0.1:0"]);
    listeners.steer(&all_to(2)).unwrap();
    let client = connect(old);
    listeners.retire(Generation(1)).unwrap();
    assert!(is_held_back(old));
    assert_eq!(spread(&[&second[0].socket], crowd(web, 3).len()), [3], "what the front has goes on");
    assert_eq!(accept(&first[1], 1), [client.local_addr().unwrap()], "its queue runs empty");
    let queues = listeners.queues();
    assert!(queues.iter().all(|queue| queue.waiting == 0), "what holds it back is nobody's queue: {queues:?}");
    listeners.steer(&all_to(1)).unwrap();
    let client = connect(old);
    assert_eq!(accept(&first[1], 1), [client.local_addr().unwrap()]);
}

#[test]
fn the_front_that_retires_at_a_stop_is_not_held_back_by_that() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    listeners.retire(Generation(1)).unwrap();
    let client = connect(address(&listeners, "web"));
    assert_eq!(accept(&first[0], 1), [client.local_addr().unwrap()]);
}

#[test]
fn each_generation_calls_a_renamed_listener_by_its_own_name_and_nobody_loses_the_socket() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    let to = address(&listeners, "web");
    let client = connect(to);
    let second = begin(&mut listeners, 2, &[&format!("api={to}")]);
    assert_eq!(second[0].name, "api");
    let called =
        |listeners: &Listeners, generation| listeners.reach(Generation(generation)).listeners[0].1.name.clone();
    assert_eq!((called(&listeners, 1), called(&listeners, 2)), ("web".to_owned(), "api".to_owned()));
    assert_eq!(listeners.all().next().unwrap().name, "web", "nothing has changed before it serves");
    assert_eq!(listeners.all().count(), 1);
    listeners.steer(&all_to(2)).unwrap();
    assert_eq!(listeners.all().next().unwrap().name, "api");
    assert_eq!(accept(&first[0], 1), [client.local_addr().unwrap()]);
    listeners.steer(&all_to(1)).unwrap();
    assert_eq!(listeners.all().next().unwrap().name, "web", "who has it back calls it as before");
}

#[test]
fn changed_options_are_in_force_when_the_generation_that_asked_for_them_serves() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    let to = address(&listeners, "web");
    let second =
        begin(&mut listeners, 2, &[&format!("web={to},backlog=77,nodelay,defer-accept=5,freebind,nonblocking")]);
    let defer = |socket: &OwnedFd| number(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT).unwrap() > 0;
    let nodelay = |socket: &OwnedFd| getsockopt(socket, sockopt::TcpNoDelay).unwrap();
    let freebind = |socket: &OwnedFd| number(socket.as_fd(), libc::IPPROTO_IP, libc::IP_FREEBIND).unwrap() == 1;
    let web = listeners.all().next().unwrap().clone();
    let limit = |socket: &OwnedFd| backlog(&web, socket.as_fd()).unwrap();
    let (old, new) = (&first[0].socket, &second[0].socket);
    assert_eq!((limit(old), limit(new)), (4096, 77), "its own slot is as it asked for");
    assert!(!is_nonblocking(old.as_fd()).unwrap() && is_nonblocking(new.as_fd()).unwrap());
    assert!(!nodelay(old) && !defer(old) && !freebind(old), "the old one's is as it was");
    listeners.steer(&all_to(2)).unwrap();
    for socket in [old, new] {
        assert_eq!((limit(socket), nodelay(socket), defer(socket), freebind(socket)), (77, true, true, true));
    }
    assert!(!is_nonblocking(old.as_fd()).unwrap(), "whoever has a socket may rely on its mode");
    let third = begin(&mut listeners, 3, &[&format!("web={to}")]);
    listeners.steer(&all_to(3)).unwrap();
    let socket = &third[0].socket;
    assert_eq!((limit(socket), nodelay(socket), defer(socket), freebind(socket)), (4096, false, false, false));
}

#[test]
fn what_the_kernel_does_not_change_on_a_bound_socket_is_told() {
    let (mut listeners, _) = serving(&["[::1]:0"]);
    let to = address(&listeners, "web");
    let told = listeners.prepare(Generation(2), Some(&asked(&[&format!("{to},v6only")]))).unwrap();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("listener `web`: v6only stays as it is until zdr is restarted, because"), "{told:?}");
    assert_eq!(listeners.prepare(Generation(3), Some(&asked(&[&to.to_string()]))).unwrap(), Vec::<String>::new());
}

#[test]
fn a_listener_that_cannot_be_had_changes_nothing() {
    let (mut listeners, first) = serving(&["127.0.0.1:0", "old=127.0.0.1:0"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let before: Vec<Listener> = listeners.all().cloned().collect();
    let inodes = |listeners: &Listeners| listeners.lanes.iter().flat_map(Lane::inodes).collect::<Vec<u64>>();
    let (own, free) = (inodes(&listeners), TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let taken = format!("taken={}", taken.local_addr().unwrap());
    let lists: [&[&str]; 2] = [
        &["other=127.0.0.1:0", &format!("new={free}"), &taken],
        &["web=127.0.0.1:0", &format!("twice={}", address(&listeners, "web"))],
    ];
    for list in lists {
        let error = listeners.prepare(Generation(2), Some(&asked(list))).unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on 127.0.0.1:"), "{error}");
    }
    assert_eq!(listeners.all().cloned().collect::<Vec<_>>(), before);
    assert_eq!(inodes(&listeners), own);
    assert!(is_refused(free), "what was bound before the failure is closed");
    for (name, borrowed) in [("web", &first[0]), ("old", &first[1])] {
        assert_eq!(spread(&[&borrowed.socket], crowd(address(&listeners, name), 3).len()), [3]);
    }
}

#[test]
fn a_port_that_the_kernel_chose_is_kept_for_its_name() {
    let (mut listeners, _) = serving(&["a=127.0.0.1:0", "b=127.0.0.1:0"]);
    let (a, b) = (address(&listeners, "a"), address(&listeners, "b"));
    begin(&mut listeners, 2, &["b=127.0.0.1:0", "c=127.0.0.1:0", "a=127.0.0.1:0"]);
    assert_eq!((address(&listeners, "a"), address(&listeners, "b")), (a, b));
    assert!(![a, b].contains(&address(&listeners, "c")));
}

#[test]
fn a_wider_address_replaces_a_narrower_one_on_the_same_port() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    let to = address(&listeners, "web");
    let second = begin(&mut listeners, 2, &[&format!("0.0.0.0:{}", to.port())]);
    let client = connect(to);
    listeners.steer(&all_to(2)).unwrap();
    assert_eq!(accept(&first[0], 1), [client.local_addr().unwrap()]);
    assert!(is_held_back(to), "the kernel prefers the narrower one while it is open");
    drop(first);
    listeners.release(Generation(1));
    assert_eq!(spread(&[&second[0].socket], crowd(to, 3).len()), [3]);
}

#[test]
fn when_all_have_died_connections_wait_in_the_listeners_of_the_last_that_served() {
    let (mut listeners, _) = serving(&["127.0.0.1:0", "old=127.0.0.1:0"]);
    let (web, old) = (address(&listeners, "web"), address(&listeners, "old"));
    begin(&mut listeners, 2, &["127.0.0.1:0", "new=127.0.0.1:0"]);
    listeners.steer(&all_to(2)).unwrap();
    let new = address(&listeners, "new");
    listeners.release(Generation(1));
    listeners.release(Generation(2));
    assert!(is_refused(old));
    let clients = [connect(web), connect(new)].map(|client| client.local_addr().unwrap());
    listeners.prepare(Generation(3), None).unwrap();
    let third = lend(&mut listeners, only(3), Place::Steered);
    assert_eq!(third.iter().map(|lent| lent.name.as_str()).collect::<Vec<_>>(), ["web", "new"]);
    assert_eq!([accept(&third[0], 1)[0], accept(&third[1], 1)[0]], clients);
}

#[test]
fn what_the_first_of_all_asked_for_stays_until_something_has_served() {
    let mut listeners = Listeners::bind(&asked(&["127.0.0.1:0"])).unwrap();
    lend(&mut listeners, only(1), Place::Steered);
    listeners.release(Generation(1));
    let client = connect(address(&listeners, "web"));
    let second = lend(&mut listeners, only(2), Place::Steered);
    assert_eq!(accept(&second[0], 1), [client.local_addr().unwrap()]);
}

#[test]
fn a_removed_listener_that_comes_back_while_the_old_generation_lives_is_the_same() {
    let (mut listeners, first) = serving(&["127.0.0.1:0", "old=127.0.0.1:0"]);
    let old = address(&listeners, "old");
    begin(&mut listeners, 2, &["127.0.0.1:0"]);
    listeners.steer(&all_to(2)).unwrap();
    listeners.retire(Generation(1)).unwrap();
    let third = begin(&mut listeners, 3, &["127.0.0.1:0", &format!("back={old}")]);
    assert_ne!(inode(&third[1].socket), inode(&first[1].socket));
    listeners.steer(&all_to(3)).unwrap();
    listeners.release(Generation(1));
    listeners.release(Generation(2));
    assert_eq!(spread(&[&third[1].socket], crowd(old, 3).len()), [3]);
}

#[test]
fn an_added_listener_goes_to_the_next_that_starts_when_the_first_that_asked_for_it_fails() {
    let (mut listeners, _) = serving(&["127.0.0.1:0"]);
    let list = ["127.0.0.1:0", "new=127.0.0.1:0"];
    begin(&mut listeners, 2, &list);
    let third = begin(&mut listeners, 3, &list);
    let new = address(&listeners, "new");
    listeners.release(Generation(2));
    assert_eq!(spread(&[&third[1].socket], crowd(new, 3).len()), [3]);
}

#[test]
fn a_listener_that_only_a_draining_generation_has_left_is_held_back() {
    let (mut listeners, _) = serving(&["127.0.0.1:0", "old=127.0.0.1:0"]);
    let old = address(&listeners, "old");
    lend(&mut listeners, only(2), Place::Beside);
    listeners.steer(&all_to(2)).unwrap();
    listeners.retire(Generation(1)).unwrap();
    drop(connect(old));
    begin(&mut listeners, 3, &["127.0.0.1:0"]);
    listeners.steer(&all_to(3)).unwrap();
    listeners.release(Generation(2));
    assert!(is_held_back(old), "the first generation is about to end");
    listeners.release(Generation(1));
    assert!(is_refused(old));
}

#[test]
fn what_a_generation_was_prepared_with_stays_until_it_is_lent_even_if_another_one_fails_meanwhile() {
    let (mut listeners, _) = serving(&["127.0.0.1:0"]);
    lend(&mut listeners, only(2), Place::Beside);
    listeners.prepare(Generation(3), Some(&asked(&["127.0.0.1:0", "new=127.0.0.1:0"]))).unwrap();
    let waits = connect(address(&listeners, "new"));
    listeners.release(Generation(2));
    let third = lend(&mut listeners, only(3), Place::Beside);
    assert_eq!(accept(&third[1], 1), [waits.local_addr().unwrap()]);
}
