//! What is new, spread over generations and instances by their shares.

use std::net::UdpSocket;
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

/// How many clients are there at a time: few enough for the descriptors that a process may have.
const AT_A_TIME: usize = 100;

/// How many of so many connections each server gets.
fn spread_of(to: SocketAddr, servers: &[&OwnedFd], clients: usize) -> Vec<usize> {
    let mut counts = vec![0; servers.len()];
    for _ in 0..clients / AT_A_TIME {
        let crowd = crowd(to, AT_A_TIME);
        for (count, more) in counts.iter_mut().zip(spread(servers, crowd.len())) {
            *count += more;
        }
    }
    counts
}

/// Six standard deviations of a binomial count: one run in hundreds of millions is outside.
#[track_caller]
fn is_about(count: usize, clients: usize, share: f64) {
    let clients = f64::from(u32::try_from(clients).unwrap());
    let count = f64::from(u32::try_from(count).unwrap());
    let deviation = (clients * share * (1.0 - share)).sqrt();
    assert!((count - clients * share).abs() < 6.0 * deviation, "{count} of {clients}, and not about {share}");
}

#[test]
fn each_portion_gets_its_share_of_what_is_new() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    let to = address(&listeners, "web");
    let second = lend(&mut listeners, only(2), Place::Beside);
    listeners.steer(&[portion(1, &[1], 3), portion(2, &[1], 1)]).unwrap();
    let counts = spread_of(to, &[&first[0].socket, &second[0].socket], 10_000);
    is_about(counts[0], 10_000, 0.75);
    listeners.steer(&[portion(1, &[1], 0), portion(2, &[1], 7)]).unwrap();
    assert_eq!(spread_of(to, &[&first[0].socket, &second[0].socket], 200), [0, 200]);
    listeners.steer(&[portion(1, &[1], 0), portion(2, &[1], 0)]).unwrap();
    assert_eq!(spread_of(to, &[&first[0].socket, &second[0].socket], 200), [200, 0], "somebody gets it");
}

fn evenly_over(instances: u32) {
    let mut listeners = Listeners::bind(&asked(&["127.0.0.1:0"])).unwrap();
    let numbers: Vec<u32> = (1..=instances).collect();
    let lent: Vec<OwnedFd> = numbers
        .iter()
        .map(|number| {
            let instance = instance(1, *number);
            lend_from(&mut listeners, instance, Place::Steered, QueueMode::PerInstance).remove(0).socket
        })
        .collect();
    listeners.steer(&[portion(1, &numbers, 1)]).unwrap();
    let clients = 10_000;
    let counts = spread_of(address(&listeners, "web"), &lent.iter().collect::<Vec<_>>(), clients);
    for count in counts {
        is_about(count, clients, 1.0 / f64::from(instances));
    }
    // The probe finds its one among all of them.
    for number in [1, instances / 2, instances] {
        for _ in 0..5 {
            let client = aimed(&mut listeners, instance(1, number));
            let server = &lent[usize::try_from(number).unwrap() - 1];
            assert_eq!(spread(&[server], 1), [1], "{number}");
            drop(client);
            listeners.unaim(instance(1, number));
        }
    }
    assert_eq!(listeners.queues()[0].limit, 4096 * instances, "all of their queues have room");
    assert_eq!(listeners.watch(Generation(1)).unwrap().len(), lent.len());
}

#[test]
fn sixty_four_instances_get_even_shares() {
    evenly_over(64);
}

#[test]
fn two_hundred_and_fifty_six_instances_get_even_shares() {
    evenly_over(256);
}

#[test]
fn the_share_of_a_generation_is_spread_over_its_instances() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    let to = address(&listeners, "web");
    let new: Vec<OwnedFd> = (1..=3)
        .map(|number| {
            let instance = instance(2, number);
            lend_from(&mut listeners, instance, Place::Beside, QueueMode::PerInstance).remove(0).socket
        })
        .collect();
    listeners.steer(&[portion(1, &[1], 1), portion(2, &[1, 3], 1)]).unwrap();
    let counts = spread_of(to, &[&first[0].socket, &new[0], &new[1], &new[2]], 10_000);
    assert_eq!(counts[2], 0, "it was not among those named");
    for (count, share) in [(counts[0], 0.5), (counts[1], 0.25), (counts[3], 0.25)] {
        is_about(count, 10_000, share);
    }
}

#[test]
fn a_probe_under_a_share_reaches_its_generation_and_nobody_else_does_by_that() {
    for address_text in ["127.0.0.1:0", "[::]:0"] {
        let (mut listeners, first) = serving(&[address_text]);
        let second = lend(&mut listeners, only(2), Place::Beside);
        let third = lend(&mut listeners, only(3), Place::Beside);
        listeners.steer(&[portion(1, &[1], 1), portion(2, &[1], 1)]).unwrap();
        for _ in 0..50 {
            let probe = aimed(&mut listeners, only(3));
            let others = crowd(probe.peer_addr().unwrap(), 4);
            assert_eq!(spread(&[&third[0].socket], 1), [1]);
            let counts = spread(&[&first[0].socket, &second[0].socket, &third[0].socket], others.len());
            assert_eq!(counts[2], 0, "{address_text}");
            listeners.unaim(only(3));
        }
    }
}

#[test]
fn the_probes_of_many_instances_reach_each_its_own_though_all_are_under_way_at_once() {
    for address_text in ["127.0.0.1:0", "[::1]:0"] {
        let (mut listeners, first) = serving(&[address_text]);
        let numbers: Vec<u32> = (1..=64).collect();
        let lent: Vec<OwnedFd> = numbers
            .iter()
            .map(|number| {
                let instance = instance(2, *number);
                lend_from(&mut listeners, instance, Place::Beside, QueueMode::PerInstance).remove(0).socket
            })
            .collect();
        let aims: Vec<Aimed> = numbers.iter().map(|number| listeners.aim(instance(2, *number), 0).unwrap()).collect();
        // The last is called off, and is a client like any other.
        listeners.unaim(instance(2, 64));
        let clients: Vec<_> = aims.into_iter().map(connected).collect();
        let mut servers: Vec<&OwnedFd> = lent.iter().collect();
        servers.push(&first[0].socket);
        let counts = spread(&servers, clients.len());
        assert_eq!((&counts[..63], counts[63], counts[64]), ([1; 63].as_slice(), 0, 1), "{address_text}");
    }
}

#[test]
fn an_added_listener_is_not_shared_with_a_front_that_has_it_not() {
    let (mut listeners, first) = serving(&["127.0.0.1:0", "old=127.0.0.1:0"]);
    let old = address(&listeners, "old");
    let second = begin(&mut listeners, 2, &["127.0.0.1:0", "new=127.0.0.1:0"]);
    listeners.steer(&[portion(1, &[1], 1), portion(2, &[1], 1)]).unwrap();
    assert_eq!(spread(&[&second[1].socket], crowd(address(&listeners, "new"), 20).len()), [20]);
    assert_eq!(spread(&[&first[1].socket], crowd(old, 20).len()), [20]);
}

#[test]
fn the_share_of_one_that_dies_goes_to_the_others() {
    let (mut listeners, first) = serving(&["127.0.0.1:0"]);
    lend(&mut listeners, only(2), Place::Beside);
    listeners.steer(&[portion(1, &[1], 1), portion(2, &[1], 1)]).unwrap();
    listeners.release(Generation(2));
    assert_eq!(spread(&[&first[0].socket], crowd(address(&listeners, "web"), 50).len()), [50]);
}

#[test]
fn a_path_cannot_be_split_and_follows_the_front() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let (mut listeners, first) = serving(&[&format!("unix:{}", path.display())]);
    let second = lend(&mut listeners, only(2), Place::Beside);
    let reaches = |borrowed: &Borrowed| {
        let client = UnixStream::connect(&path).unwrap();
        UnixListener::from(borrowed.socket.try_clone().unwrap()).accept().unwrap();
        drop(client);
    };
    listeners.steer(&[portion(1, &[1], 1), portion(2, &[1], 99)]).unwrap();
    (0..20).for_each(|_| reaches(&first[0]));
    listeners.steer(&[portion(2, &[1], 1), portion(1, &[1], 99)]).unwrap();
    (0..20).for_each(|_| reaches(&second[0]));
}

#[test]
fn the_datagrams_of_a_client_go_to_one_and_those_of_many_are_shared() {
    for (text, from) in [
        ("udp://127.0.0.1:0", "127.0.0.1"),
        ("udp://0.0.0.0:0", "127.0.0.1"),
        ("udp://[::1]:0", "::1"),
        ("udp://[::]:0", "::1"),
        ("udp://[::]:0", "127.0.0.1"),
    ] {
        let (mut listeners, first) = serving(&[text]);
        let second = lend(&mut listeners, only(2), Place::Beside);
        listeners.steer(&[portion(1, &[1], 1), portion(2, &[1], 1)]).unwrap();
        let from: IpAddr = from.parse().unwrap();
        let to = SocketAddr::new(from, address(&listeners, "web").port());
        let servers = [&first[0], &second[0]].map(|lent| UdpSocket::from(lent.socket.try_clone().unwrap()));
        for server in &servers {
            server.set_nonblocking(true).unwrap();
        }
        let mut clients = [0; 2];
        for _ in 0..200 {
            let client = UdpSocket::bind(SocketAddr::new(from, 0)).unwrap();
            for _ in 0..4 {
                client.send_to(b"?", to).unwrap();
            }
            let got = servers.each_ref().map(|server| std::iter::from_fn(|| server.recv(&mut [0]).ok()).count());
            assert!(got == [4, 0] || got == [0, 4], "{got:?}");
            clients[usize::from(got[0] == 0)] += 1;
        }
        is_about(clients[0], 200, 0.5);
    }
}
