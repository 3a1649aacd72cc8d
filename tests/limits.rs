//! Limits: how often, how long and how large; what is above one is replaced, the new one first.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Setup, get, in_seat, sample, wait_for};
use crate::instances::wait_for_serving;
use crate::python::server;
use crate::refusal::{load, nothing_lost};

/// Ends as it is asked to.
const ENDS: &str = "
def say(path):
    if path.startswith('/exit/'): os._exit(int(path.split('/')[2]))
    return GENERATION
serve(listener(), say)";

#[test]
fn who_is_started_again_is_decided_by_how_it_has_ended() {
    for (restart, code, again) in [
        ("always", 0, true),
        ("always", 3, true),
        ("on-failure", 0, false),
        ("on-failure", 3, true),
        ("never", 0, false),
        ("never", 3, false),
    ] {
        let mut zdr = Setup::of(&server(ENDS)).option("--restart", restart).start();
        get(zdr.address(), &format!("/exit/{code}"));
        if again {
            zdr.wait_until("the next", |status| in_seat(status, "serving") == Some(2));
        } else {
            assert_eq!(zdr.ended().code(), Some(code), "{restart} {code}");
            assert!(zdr.log().contains("is not started again"), "{}", zdr.log());
        }
    }
}

#[test]
fn of_several_the_others_serve_on_without_one_that_is_not_started_again() {
    let mut zdr = Setup::of(&server(ENDS)).option("-n", "2").option("--restart", "never").start();
    wait_for_serving(&zdr, 2);
    let address = zdr.address();
    get(address, "/exit/4");
    wait_for_serving(&zdr, 1);
    assert_eq!(zdr.get("/"), "1");
    get(address, "/exit/5");
    assert_eq!(zdr.ended().code(), Some(5));
}

#[test]
fn used_up_restarts_end_zdr_with_the_code_of_the_command() {
    let mut zdr = Setup::of(&server(ENDS)).option("--max-restarts", "2/1m").option("--min-uptime", "0s").start();
    let address = zdr.address();
    for generation in 2..4 {
        get(address, "/exit/7");
        zdr.wait_until("the next", |status| in_seat(status, "serving") == Some(generation));
    }
    get(address, "/exit/7");
    assert_eq!(zdr.ended().code(), Some(7));
    assert!(zdr.log().contains("has used up its 2 restarts in 1m"), "{}", zdr.log());
}

#[test]
fn used_up_restarts_of_instances_end_zdr_as_well() {
    let setup = Setup::of(&sample(&[])).option("-n", "2").option("--max-restarts", "1/1m");
    let mut zdr = setup.option("--min-uptime", "0s").start();
    let first = wait_for_serving(&zdr, 2);
    kill(Pid::from_raw(first[0].1), Signal::SIGKILL).unwrap();
    zdr.wait_until("another number 1", |status| {
        let its = crate::instances::serving_instances(status);
        its.len() == 2 && its[0].1 != first[0].1 && its[0].2 == "serving"
    });
    kill(Pid::from_raw(first[1].1), Signal::SIGKILL).unwrap();
    assert_eq!(zdr.ended().code(), Some(137));
}

/// One that served for at least `--min-uptime` is started again at once; one that did not waits longer each time.
#[test]
fn a_long_life_starts_the_back_off_afresh() {
    let zdr = Setup::of(&server(ENDS)).option("--min-uptime", "1ms").start();
    for generation in 2..6 {
        get(zdr.address(), "/exit/1");
        zdr.wait_until("the next", |status| in_seat(status, "serving") == Some(generation));
    }
    assert!(!zdr.log().contains("trying again in"), "{}", zdr.log());
}

/// Grows on request: itself, or a process that it starts.
const GROWS: &str = "
kept = []
def grow():
    kept.append(bytearray(os.urandom(1024) * 65536))
def say(path):
    if path == '/grow': grow()
    if path == '/child' and os.fork() == 0:
        grow()
        while True: time.sleep(1000)
    return GENERATION
serve(listener(), say)";

#[test]
fn one_that_grows_too_large_is_replaced_and_nothing_is_lost() {
    for way in ["/grow", "/child"] {
        let zdr = Setup::of(&server(GROWS)).option("--max-memory", "60M").option("--bake", "0s").start();
        let load = load(&zdr, 2, 0);
        get(zdr.address(), way);
        zdr.wait_until("the next", |status| in_seat(status, "serving") == Some(2));
        nothing_lost(&zdr, load);
        assert!(zdr.log().contains("MiB of memory, more than the 60 MiB of --max-memory"), "{}", zdr.log());
        wait_for("the end of the large one with all its processes", || zdr.processes_of(1).is_empty().then_some(()));
        assert_eq!(zdr.status()["crashes"], 0);
    }
}

#[test]
fn one_that_has_lived_long_enough_is_replaced_and_nothing_is_lost() {
    let setup = Setup::of(&sample(&["--work", "2ms"])).option("-n", "2").option("--max-lifetime", "1s~1s");
    let zdr = setup.option("--bake", "100ms").start();
    let load = load(&zdr, 4, 4);
    zdr.wait_until("the third", |status| in_seat(status, "serving") == Some(3));
    nothing_lost(&zdr, load);
    assert!(zdr.log().contains("as long as it may"), "{}", zdr.log());
    assert_eq!(zdr.status()["crashes"], 0);
}

/// The new one is not ready, so the old one stays for as long as that takes.
#[test]
fn what_is_to_be_replaced_serves_on_while_nothing_better_is_there() {
    let setup = Setup::of(&[""]).option("--max-lifetime", "1s").option("--ready-timeout", "500ms");
    let bad = setup.place("bad");
    let body = format!("if os.path.exists('{bad}'): sys.exit(8)\nserve(listener(), lambda path: GENERATION)");
    let zdr = setup.command(&server(&body)).start();
    let load = load(&zdr, 2, 0);
    fs::write(&bad, "").unwrap();
    wait_for("three tries", || (zdr.log().matches("exited with code 8 before").count() >= 3).then_some(()));
    assert_eq!(zdr.serving(), Some(1));
    fs::remove_file(&bad).unwrap();
    zdr.wait_until("a better one", |status| in_seat(status, "serving") > Some(1));
    nothing_lost(&zdr, load);
}
