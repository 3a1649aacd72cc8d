//! Real processes, and what `/proc` says of them.
#![expect(clippy::disallowed_methods, reason = "a test keeps its own deadline")]

use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio, id};
use std::time::{Duration, Instant};

use rustix::fs::fstat;

use super::{holder, holder_anywhere, is_alive, orphans, program, sockets, tree};

/// A shell with children, killed and reaped with all of them.
struct Family(Child);

impl Family {
    fn of(script: &str) -> Self {
        Self::marked(script, "NOTHING", "")
    }

    fn marked(script: &str, name: &str, value: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).env(name, value).stdin(Stdio::null()).stdout(Stdio::null());
        Self(shell.spawn().unwrap())
    }

    fn root(&self) -> i32 {
        self.0.id().cast_signed()
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        for pid in tree(self.root()) {
            kill(pid);
        }
        self.0.wait().unwrap();
    }
}

fn kill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    // It may have ended by itself.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come to pass in 10 seconds");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn own() -> i32 {
    id().cast_signed()
}

fn inode(socket: impl AsFd) -> u32 {
    fstat(socket).unwrap().st_ino.try_into().unwrap()
}

#[test]
fn a_tree_is_the_root_and_then_its_descendants() {
    let family = Family::of("sh -c 'sleep 60; :' & wait; :");
    wait_until(|| tree(family.root()).len() == 3);
    let tree = tree(family.root());
    assert_eq!(tree[0], family.root());
    wait_until(|| program(tree[1]).as_deref() == Some("sh"));
    wait_until(|| program(tree[2]).as_deref() == Some("sleep"));
}

#[test]
fn a_zombie_is_in_no_tree() {
    // The shell becomes a program that never reaps the child it inherits.
    let family = Family::of("sleep 60 & exec tail -f /dev/null");
    wait_until(|| program(family.root()).as_deref() == Some("tail"));
    let sleep = tree(family.root())[1];
    kill(sleep);
    wait_until(|| tree(family.root()) == [family.root()]);
    assert!(std::fs::exists(format!("/proc/{sleep}")).unwrap());
}

#[test]
fn a_process_that_is_gone_has_no_tree_no_name_and_no_sockets() {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id().cast_signed();
    child.wait().unwrap();
    assert!(tree(pid).is_empty());
    assert_eq!(program(pid), None);
    assert!(sockets(&[pid]).unwrap().is_empty());
}

#[test]
fn an_orphan_is_found_by_its_marker_unless_it_is_known() {
    let marked = Family::marked("sleep 60; :", "ZDR_TEST_ORPHAN", "first");
    let other = Family::marked("sleep 60; :", "ZDR_TEST_ORPHAN", "second");
    wait_until(|| tree(marked.root()).len() == 2 && tree(other.root()).len() == 2);
    let whole = tree(marked.root());
    wait_until(|| orphans(&[], "ZDR_TEST_ORPHAN=first") == whole);
    assert_eq!(orphans(&[whole[1]], "ZDR_TEST_ORPHAN=first"), [whole[0]]);
    assert!(orphans(&whole, "ZDR_TEST_ORPHAN=first").is_empty());
}

#[test]
fn a_process_whose_parent_has_ended_is_an_orphan_of_ours() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let mut parent = Family::marked("sleep 60 &", "ZDR_TEST_ORPHAN", "adopted");
    parent.0.wait().unwrap();
    wait_until(|| {
        let [orphan] = orphans(&[], "ZDR_TEST_ORPHAN=adopted")[..] else {
            return false;
        };
        program(orphan).as_deref() == Some("sleep")
    });
    for orphan in orphans(&[], "ZDR_TEST_ORPHAN=adopted") {
        kill(orphan);
    }
}

#[test]
fn a_marker_is_the_whole_variable() {
    let family = Family::marked("exec sleep 60", "ZDR_TEST_WHOLE", "12");
    wait_until(|| orphans(&[], "ZDR_TEST_WHOLE=12") == [family.root()]);
    assert!(orphans(&[], "ZDR_TEST_WHOLE=1").is_empty());
    assert!(orphans(&[], "TEST_WHOLE=12").is_empty());
}

#[test]
fn the_holder_of_a_socket_is_found_among_others_and_anywhere() {
    let family = Family::of("exec sleep 60");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = inode(&listener);
    assert_eq!(holder(inode, &[family.root(), own()]), Some(own()));
    assert_eq!(holder(inode, &[family.root()]), None);
    assert_eq!(holder_anywhere(inode), Some((own(), program(own()).unwrap())));
}

#[test]
fn all_sockets_of_a_process_are_found_and_nothing_else() {
    let listeners: Vec<_> = (0..100).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let held = sockets(&[own()]).unwrap();
    assert!(listeners.iter().all(|listener| held.contains(&inode(listener))));
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    assert!(!sockets(&[own()]).unwrap().contains(&inode(&file)));
}

#[test]
fn a_table_that_may_not_be_read_is_an_error_only_if_it_is_the_only_one() {
    // Root may read every table, so there is nothing to show.
    if std::fs::read_dir("/proc/1/fd").is_ok() {
        return;
    }
    let refused = sockets(&[1]).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    assert!(sockets(&[1, own()]).is_ok());
}

#[test]
fn a_long_program_name_is_given_in_full() {
    let directory = std::env::temp_dir().join(format!("zdr-processes-{}", id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("a-program-with-a-long-name");
    std::os::unix::fs::symlink("/bin/sleep", &path).unwrap();
    let mut child = Command::new(&path).arg("60").spawn().unwrap();
    let pid = child.id().cast_signed();
    wait_until(|| program(pid).as_deref() == Some("a-program-with-a-long-name"));
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn this_process_is_alive() {
    assert!(is_alive(own()));
}
