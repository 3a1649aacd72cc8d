//! Which slots the instances of a generation are lent.

use std::os::unix::net::{UnixListener, UnixStream};

use super::super::make::inode;
use super::super::queue::is_nonblocking;
use super::*;

fn each(listeners: &mut Listeners, generation: u64, numbers: &[u32], place: Place) -> Vec<OwnedFd> {
    let lent = |number: &u32| {
        lend_from(listeners, instance(generation, *number), place, QueueMode::PerInstance).remove(0).socket
    };
    numbers.iter().map(lent).collect()
}

fn inodes(sockets: &[OwnedFd]) -> Vec<u64> {
    sockets.iter().map(inode).collect()
}

fn is_shared(listeners: &mut Listeners, instance: Instance) -> bool {
    listeners.aim(instance, 0).unwrap().shared
}

#[test]
fn instances_that_share_a_queue_are_lent_one_socket_and_an_answer_is_anybodys() {
    let mut listeners = Listeners::bind(&asked(&["127.0.0.1:0"])).unwrap();
    let one = lend(&mut listeners, instance(1, 1), Place::Steered);
    assert!(!is_shared(&mut listeners, instance(1, 1)));
    let two = lend(&mut listeners, instance(1, 2), Place::Beside);
    assert_eq!(inode(&one[0].socket), inode(&two[0].socket));
    assert!(is_shared(&mut listeners, instance(1, 1)) && is_shared(&mut listeners, instance(1, 2)));
    listeners.leave(instance(1, 1));
    assert!(!is_shared(&mut listeners, instance(1, 2)), "there is one left");
    assert_eq!(listeners.watch(Generation(1)).unwrap().len(), 1, "it is one queue");
}

#[test]
fn a_queue_that_an_instance_uses_stays_in_the_mode_that_it_relies_on() {
    let mut listeners = Listeners::bind(&asked(&["127.0.0.1:0"])).unwrap();
    let one = lend(&mut listeners, instance(1, 1), Place::Steered);
    set_nonblocking(one[0].socket.as_fd(), true).unwrap();
    lend(&mut listeners, instance(1, 2), Place::Beside);
    assert!(is_nonblocking(one[0].socket.as_fd()).unwrap());
    listeners.leave(instance(1, 1));
    listeners.leave(instance(1, 2));
    lend(&mut listeners, instance(1, 1), Place::Beside);
    assert!(!is_nonblocking(one[0].socket.as_fd()).unwrap(), "nobody has it any more but the one that is new");
}

#[test]
fn an_instance_that_is_started_again_gets_its_slot_and_what_waits_there() {
    let mut listeners = Listeners::bind(&asked(&["127.0.0.1:0"])).unwrap();
    let lent = each(&mut listeners, 1, &[1, 2, 3], Place::Steered);
    let mut distinct = inodes(&lent);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 3);
    listeners.steer(&[portion(1, &[2], 1)]).unwrap();
    let client = connect(address(&listeners, "web"));
    listeners.leave(instance(1, 2));
    let other = each(&mut listeners, 2, &[1, 2], Place::Beside);
    assert!(!inodes(&other).contains(&inode(&lent[1])), "it is nobody else's");
    let again = lend_from(&mut listeners, instance(1, 2), Place::Beside, QueueMode::PerInstance);
    assert_eq!(inode(&again[0].socket), inode(&lent[1]));
    assert_eq!(accept(&again[0], 1), [client.local_addr().unwrap()]);
}

#[test]
fn the_next_generation_takes_the_slots_of_the_last_one_by_one() {
    let mut listeners = Listeners::bind(&asked(&["127.0.0.1:0"])).unwrap();
    let first = inodes(&each(&mut listeners, 1, &[1, 2, 3], Place::Steered));
    listeners.steer(&[portion(1, &[1, 2, 3], 1)]).unwrap();
    let crowd = crowd(address(&listeners, "web"), 60);
    assert_eq!(listeners.release(Generation(1)), 0, "they wait for the next");
    let second = each(&mut listeners, 2, &[1, 2, 3, 4], Place::Steered);
    assert_eq!(inodes(&second)[..3], first[..]);
    assert!(!first.contains(&inode(&second[3])));
    assert_eq!(spread(&second.iter().collect::<Vec<_>>(), crowd.len()).iter().sum::<usize>(), crowd.len());
    let finishers = each(&mut listeners, 3, &[1, 2], Place::Of(Generation(2)));
    assert_eq!(inodes(&finishers), inodes(&second)[..2]);
}

#[test]
fn the_slots_of_a_generation_that_is_released_are_free_and_who_waits_there_is_told() {
    let mut listeners = Listeners::bind(&asked(&["127.0.0.1:0"])).unwrap();
    lend(&mut listeners, only(1), Place::Steered);
    let second = each(&mut listeners, 2, &[1, 2], Place::Beside);
    listeners.steer(&[portion(2, &[1, 2], 1)]).unwrap();
    let crowd = crowd(address(&listeners, "web"), 20);
    listeners.steer(&all_to(1)).unwrap();
    assert_eq!(listeners.release(Generation(2)), crowd.len());
    assert_eq!(inodes(&each(&mut listeners, 3, &[1, 2], Place::Beside)), inodes(&second));
}

#[test]
fn all_instances_have_the_one_socket_of_a_path_that_clients_find() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let mut listeners = Listeners::bind(&asked(&[&format!("unix:{}", path.display())])).unwrap();
    each(&mut listeners, 1, &[1, 2], Place::Steered);
    listeners.steer(&[portion(1, &[1, 2], 1)]).unwrap();
    let second = each(&mut listeners, 2, &[1, 2], Place::Beside);
    assert_eq!(inode(&second[0]), inode(&second[1]));
    listeners.steer(&[portion(2, &[2], 1)]).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    UnixListener::from(second[1].try_clone().unwrap()).accept().unwrap();
    assert!(is_shared(&mut listeners, instance(2, 2)), "who accepted it must be found out");
    drop(client);
}
