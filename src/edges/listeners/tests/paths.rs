//! Unix paths and abstract names that come, go and change.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

use super::*;

fn accepts(borrowed: &Borrowed) {
    UnixListener::from(borrowed.socket.try_clone().unwrap()).accept().unwrap();
}

fn names_in(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_path_is_added_when_it_is_lent_and_removed_with_the_last_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let (mut listeners, _) = serving(&["127.0.0.1:0"]);
    let list = ["127.0.0.1:0", &format!("app=unix:{}", path.display())];
    listeners.prepare(Generation(2), Some(&asked(&list))).unwrap();
    assert!(!path.exists(), "nobody would answer there");
    let second = lend(&mut listeners, only(2), Place::Beside);
    let client = UnixStream::connect(&path).unwrap();
    accepts(&second[1]);
    drop(client);
    listeners.steer(&all_to(2)).unwrap();
    listeners.release(Generation(1));
    let third = begin(&mut listeners, 3, &["127.0.0.1:0"]);
    listeners.steer(&all_to(3)).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    accepts(&second[1]);
    drop(client);
    listeners.retire(Generation(2)).unwrap();
    assert!(!path.exists(), "nobody is sent to one that is about to end");
    listeners.release(Generation(2));
    assert_eq!((names_in(folder.path()), third.len()), (0, 1));
}

#[test]
fn a_path_of_a_generation_that_failed_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let (mut listeners, _) = serving(&["127.0.0.1:0"]);
    begin(&mut listeners, 2, &["127.0.0.1:0", &format!("app=unix:{}", path.display())]);
    listeners.release(Generation(2));
    assert_eq!(names_in(folder.path()), 0);
}

#[test]
fn a_path_that_is_somebody_elses_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let theirs = UnixListener::bind(&path).unwrap();
    let (mut listeners, _) = serving(&["127.0.0.1:0"]);
    let list = asked(&["127.0.0.1:0", &format!("app=unix:{}", path.display())]);
    assert!(matches!(listeners.prepare(Generation(2), Some(&list)), Err(ListenError::InUse { .. })));
    let client = UnixStream::connect(&path).unwrap();
    theirs.accept().unwrap();
    assert_eq!((names_in(folder.path()), listeners.all().count()), (1, 1));
    drop(client);
}

#[test]
fn the_rights_of_a_path_change_when_the_generation_that_asked_for_them_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let text = |keys: &str| format!("app=unix:{},{keys}", path.display());
    let (mut listeners, _) = serving(&[&text("mode=0600")]);
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let own = fs::metadata(&path).unwrap().uid();
    begin(&mut listeners, 2, &[&text(&format!("mode=0666,owner={own}"))]);
    assert_eq!(mode(), 0o600);
    listeners.steer(&all_to(2)).unwrap();
    assert_eq!(mode(), 0o666);
    listeners.steer(&all_to(1)).unwrap();
    assert_eq!(mode(), 0o600, "the one that has it back is as it asked for");
    let told = listeners.prepare(Generation(3), Some(&asked(&[&format!("app=unix:{}", path.display())]))).unwrap();
    assert_eq!(told, ["listener `app`: mode stays as it is, because no other is asked for; say `mode=…`"]);
    let nobody = asked(&[&text("owner=nobody-of-this-name")]);
    assert!(listeners.prepare(Generation(3), Some(&nobody)).unwrap_err().to_string().contains("there is no user"));
}

#[test]
fn an_abstract_name_comes_and_goes_and_is_shared_meanwhile() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("zdr-changes-{}", std::process::id());
    let text = format!("shared=unix:@{name}");
    let to = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let (mut listeners, _) = serving(&["127.0.0.1:0"]);
    let second = begin(&mut listeners, 2, &["127.0.0.1:0", &text]);
    listeners.steer(&all_to(2)).unwrap();
    listeners.release(Generation(1));
    let third = begin(&mut listeners, 3, &["127.0.0.1:0", &text]);
    listeners.steer(&all_to(3)).unwrap();
    for borrowed in [&second[1], &third[1]] {
        let client = UnixStream::connect_addr(&to).unwrap();
        accepts(borrowed);
        drop(client);
    }
    let number = listeners.reach(Generation(3)).listeners[1].0;
    assert!(listeners.aim(only(3), number).unwrap().shared);
    begin(&mut listeners, 4, &["127.0.0.1:0"]);
    listeners.steer(&all_to(4)).unwrap();
    drop((second, third));
    listeners.release(Generation(2));
    UnixStream::connect_addr(&to).unwrap();
    listeners.release(Generation(3));
    assert_eq!(UnixStream::connect_addr(&to).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}
