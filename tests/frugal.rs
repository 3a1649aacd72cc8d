//! What zdr costs while nothing happens, and after much has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Setup, Zdr, in_seat, sample, wait_for};
use crate::instances::wait_for_serving;
use crate::refusal::{load, nothing_lost};

/// Voluntary context switches of all threads, as the kernel counts them. One that ends meanwhile counts no more.
fn switches(pid: i32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    threads.filter_map(|thread| field(&thread.path().join("status"), "voluntary_ctxt_switches")).sum()
}

/// A number from a status file of `/proc`.
fn field(path: &Path, name: &str) -> Option<u64> {
    let status = fs::read_to_string(path).ok()?;
    let line = status.lines().find(|line| line.starts_with(&format!("{name}:")))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn resident(pid: i32) -> u64 {
    field(&Path::new("/proc").join(pid.to_string()).join("status"), "VmRSS").unwrap()
}

/// What it has allocated. How much of the program's file is resident besides changes from moment to moment.
fn allocated(pid: i32) -> u64 {
    field(&Path::new("/proc").join(pid.to_string()).join("status"), "RssAnon").unwrap()
}

fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// What it has open, by what each leads to.
fn descriptors(pid: i32) -> Vec<PathBuf> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut open: Vec<PathBuf> = open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok()).collect();
    open.sort();
    open
}

/// Waits until it does nothing any more: one thread, which has not run for half a second.
fn at_rest(zdr: &Zdr) {
    let mut last = (0, Instant::now());
    wait_for("it to be at rest", || {
        let now = switches(zdr.pid());
        if now != last.0 || threads(zdr.pid()) > 1 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_millis(500)).then_some(())
    });
}

/// Waits as long as the promise says: ten seconds, by the clock.
#[test]
fn an_idle_zdr_never_wakes_up_and_has_one_thread() {
    let zdr = Setup::of(&sample(&[])).option("--health", "127.0.0.1:0").option("--bake", "0s").start();
    assert_eq!(zdr.reload().code, 0);
    zdr.wait_until("the old one to end", |status| in_seat(status, "draining").is_none());
    at_rest(&zdr);
    let (before, begun) = (switches(zdr.pid()), Instant::now());
    wait_for("ten seconds", || (begun.elapsed() >= Duration::from_secs(10)).then_some(()));
    assert_eq!(switches(zdr.pid()) - before, 0);
    assert_eq!(threads(zdr.pid()), 1);
}

/// `zdr wait` asks for readiness alone.
#[test]
fn checks_wake_nobody_up_while_nobody_looks() {
    let setup =
        Setup::of(&sample(&[])).option("--health", "127.0.0.1:0").option("--check", "a=exec:true,interval=100ms");
    let zdr = setup.option("--check", "b=/,interval=100ms").start();
    at_rest(&zdr);
    let (before, begun) = (switches(zdr.pid()), Instant::now());
    wait_for("three seconds", || (begun.elapsed() >= Duration::from_secs(3)).then_some(()));
    assert_eq!(switches(zdr.pid()) - before, 0);
    let looked = zdr.status()["checks"].clone();
    assert_eq!((&looked["a"]["state"], &looked["b"]["state"]), (&"healthy".into(), &"healthy".into()));
}

/// A debug binary is not built to be small; its bound is there to notice growth.
const RESIDENT_IN_DEBUG: u64 = 24 * 1024;

/// The promise, of the release binary in `$ZDR_RELEASE_BINARY`.
const RESIDENT: u64 = 5 * 1024;

#[test]
fn after_twenty_reloads_zdr_is_small() {
    let release = std::env::var("ZDR_RELEASE_BINARY").ok();
    let bound = if release.is_some() { RESIDENT } else { RESIDENT_IN_DEBUG };
    let setup = Setup::of(&sample(&[])).option("--ready", "/health").option("--bake", "0s");
    let zdr = release.iter().fold(setup, |setup, binary| setup.binary(binary)).start();
    for _ in 0..20 {
        assert_eq!(zdr.reload().code, 0);
    }
    zdr.wait_until("the old ones to end", |status| in_seat(status, "draining").is_none());
    at_rest(&zdr);
    let resident = resident(zdr.pid());
    assert!(resident <= bound, "{resident} KiB are more than {bound}");
}

/// Likewise with many instances on many listeners.
const RESIDENT_WITH_MANY: u64 = 12 * 1024;
const RESIDENT_WITH_MANY_IN_DEBUG: u64 = 32 * 1024;

#[test]
fn sixty_four_instances_on_thirty_two_listeners_are_replaced_by_a_small_zdr() {
    let release = std::env::var("ZDR_RELEASE_BINARY").ok();
    let bound = if release.is_some() { RESIDENT_WITH_MANY } else { RESIDENT_WITH_MANY_IN_DEBUG };
    let names: Vec<String> = (0..32).map(|number| format!("l{number}=127.0.0.1:0")).collect();
    let listeners: Vec<&str> = names.iter().map(String::as_str).collect();
    let setup = Setup::of(&sample(&[])).option("-n", "64").option("--bake", "0s").listen(&listeners);
    let zdr = release.iter().fold(setup, |setup, binary| setup.binary(binary)).begin();
    assert_eq!(zdr.client(&["wait", "--timeout", "60s"]).code, 0, "{}", zdr.log());
    wait_for_serving(&zdr, 64);
    let load = load(&zdr, 2, 2);
    let begun = Instant::now();
    let told = zdr.reload();
    assert_eq!(told.code, 0, "{told:?}");
    eprintln!("64 instances on 32 listeners replaced in {:.1?}", begun.elapsed());
    assert_eq!(zdr.client(&["reload", "--wait", "drained"]).code, 0, "{}", zdr.log());
    nothing_lost(&zdr, load);
    let (resident, open) = (resident(zdr.pid()), descriptors(zdr.pid()).len());
    eprintln!("{resident} KiB resident, {open} descriptors");
    assert!(resident <= bound, "{resident} KiB are more than {bound}");
    assert!(open <= 1024, "more descriptors than a process usually may have: {open}");
}

/// 200 reloads, or 1,000 with `ZDR_LONG=1`.
#[test]
fn neither_descriptors_nor_memory_grow_over_many_reloads() {
    let many = if std::env::var_os("ZDR_LONG").is_some() { 1000 } else { 200 };
    let zdr = Setup::of(&sample(&[])).option("--ready", "/health").option("--bake", "0s").start();
    let reload = |times: u32| {
        for _ in 0..times {
            assert_eq!(zdr.reload().code, 0, "{}", zdr.log());
        }
        zdr.wait_until("the old ones to end", |status| in_seat(status, "draining").is_none());
        at_rest(&zdr);
    };
    let slots = || usize::try_from(zdr.status()["listeners"][0]["slots"].as_u64().unwrap()).unwrap();
    // Until as much is remembered as ever is: the last events, and the releases that one can go back to.
    reload(many / 2);
    let before = (descriptors(zdr.pid()), allocated(zdr.pid()), slots());
    reload(many / 2);
    let after = (descriptors(zdr.pid()), allocated(zdr.pid()), slots());
    assert!(after.2 <= 16, "{} slots", after.2);
    // One slot more for each generation that was still draining; each is one descriptor.
    let more = after.2.saturating_sub(before.2);
    assert!(after.0.len() <= before.0.len() + more, "{more} slots more: {:?}, then {:?}", before.0, after.0);
    assert!(after.1 <= before.1 + 512, "{} KiB, then {}", before.1, after.1);
    let files = fs::read_dir(zdr.folder()).unwrap().count();
    assert!(
        files <= 5,
        "only the log, the admin socket, its lock and the two sockets of one generation should be there, not {files} files"
    );
}

#[test]
fn a_binary_given_for_measuring_is_there() {
    if let Ok(binary) = std::env::var("ZDR_RELEASE_BINARY") {
        assert!(
            Command::new(&binary).arg("--version").output().is_ok_and(|output| output.status.success()),
            "{binary}"
        );
    }
}
