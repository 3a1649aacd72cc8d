//! Control groups: a generation ends with every process it started, whatever they made of themselves, and leaves no group.
//!
//! Needs a hierarchy of cgroup v2 that root may write to, and fails where there is none.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Setup, Zdr, sample, wait_for};
use crate::python::server;

/// Where the hierarchy is mounted.
fn hierarchy() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let found = mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    });
    found.expect("these tests need a mount of cgroup v2")
}

/// The group of a process.
fn group(pid: i32) -> PathBuf {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    hierarchy().join(path)
}

fn is_group_of(zdr: &Zdr, generation: u64, path: &std::path::Path) -> bool {
    path.file_name().unwrap().to_str() == Some(&format!("zdr-{}-g{generation}.1", zdr.pid()))
}

/// Starts a process that is neither a descendant nor known by user, session or environment, and writes down its number.
fn refugee(note: &str, environment: &str) -> String {
    format!(
        "
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open('{note}.new', 'w') as note:
            note.write(str(os.getpid()))
        os.rename('{note}.new', '{note}')
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        os.execve('/bin/sleep', ['sleep', '1000'], {environment})
    os._exit(0)
os.wait()
"
    )
}

fn noted(path: &str) -> i32 {
    wait_for("the refugee", || fs::read_to_string(path).ok()?.parse().ok())
}

fn ends(pid: i32) {
    wait_for("its end", || kill(Pid::from_raw(pid), None).is_err().then_some(()));
}

#[test]
fn nothing_escapes_from_a_generation_that_is_killed() {
    let setup = Setup::of(&sample(&[])).option("--ready-timeout", "1s");
    let note = setup.place("note");
    let zdr = setup.start();
    let bad = server(&format!("{}time.sleep(1000)", refugee(&note, "{}")));
    let told = zdr.reload_to(&bad);
    assert_eq!(told.code, 3, "{told:?}");
    ends(noted(&note));
    // Generation 1 could have been its parent as well, so nothing but the group can have told.
    assert!(zdr.get("/").contains("generation 1,"));
    let own = group(zdr.server_pid());
    assert!(is_group_of(&zdr, 1, &own), "{own:?}");
    wait_for("the end of the other's group", || {
        (!own.with_file_name(format!("zdr-{}-g2.1", zdr.pid())).exists()).then_some(())
    });
}

#[test]
fn no_group_is_left_by_reloads_nor_by_the_end() {
    let mut zdr = Setup::of(&sample(&[])).option("--bake", "0s").start();
    let first = group(zdr.server_pid());
    assert!(is_group_of(&zdr, 1, &first) && first.exists());
    assert_eq!(zdr.client(&["reload", "--wait", "drained"]).code, 0);
    wait_for("the end of the first group", || (!first.exists()).then_some(()));
    let second = group(zdr.server_pid());
    assert!(is_group_of(&zdr, 2, &second));
    zdr.signal(Signal::SIGTERM);
    assert_eq!(zdr.ended().code(), Some(0));
    assert!(!second.exists());
}

#[test]
fn the_end_of_zdr_is_the_end_of_those_that_hid() {
    let setup = Setup::of(&[""]);
    let note = setup.place("note");
    let mut zdr =
        setup.command(&server(&format!("{}serve(listener(), lambda path: 'up')", refugee(&note, "{}")))).start();
    let (pid, left) = (noted(&note), group(zdr.server_pid()));
    zdr.signal(Signal::SIGTERM);
    assert_eq!(zdr.ended().code(), Some(0));
    ends(pid);
    assert!(!left.exists());
}

#[test]
fn what_a_killed_zdr_left_is_removed_by_the_next() {
    let zdr = Setup::of(&sample(&[])).start();
    let server = zdr.server_pid();
    let left = group(server);
    zdr.signal(Signal::SIGKILL);
    let mut zdr = zdr;
    zdr.ended();
    kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
    ends(server);
    let next = Setup::of(&sample(&[])).at(&zdr.admin().display().to_string()).start();
    assert!(!left.exists());
    assert!(group(next.server_pid()).exists());
}

#[test]
fn without_control_groups_orphans_are_found_by_their_marker() {
    let hide = format!("mount -t tmpfs none {} && exec \"$@\"", hierarchy().display());
    let setup = Setup::of(&sample(&[])).option("--ready-timeout", "1s");
    let note = setup.place("note");
    let zdr = setup.through(&["unshare", "--mount", "sh", "-c", &hide, "sh"]).start();
    assert!(!is_group_of(&zdr, 1, &group(zdr.server_pid())));
    let told = zdr.reload_to(&server(&format!("{}time.sleep(1000)", refugee(&note, "os.environ"))));
    assert_eq!(told.code, 3, "{told:?}");
    ends(noted(&note));
}
