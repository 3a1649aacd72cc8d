//! Another number of instances, while they serve.

use nix::sys::signal::Signal;

use crate::harness::{Setup, in_seat, sample};
use crate::instances::{serving_instances, wait_for_serving};
use crate::refusal::{load, nothing_lost};

#[test]
fn more_join_those_that_serve_and_fewer_are_a_new_generation_with_nothing_lost() {
    for queue in ["shared", "per-instance"] {
        let setup = Setup::of(&sample(&["--work", "2ms"])).option("-n", "2").option("--queue", queue);
        let zdr = setup.option("--bake", "50ms").start();
        let before = wait_for_serving(&zdr, 2);
        let load = load(&zdr, 4, 4);
        let told = zdr.client(&["scale", "4"]);
        assert_eq!(told.code, 0, "{told:?}");
        assert!(told.out.contains("4 instances serve"), "{told:?}");
        let four = wait_for_serving(&zdr, 4);
        assert_eq!((&four[..2], zdr.serving()), (&before[..], Some(1)), "those that served go on");
        assert_eq!(zdr.client(&["scale", "+1"]).code, 0);
        wait_for_serving(&zdr, 5);
        assert_eq!(zdr.client(&["scale", "-3"]).code, 0);
        wait_for_serving(&zdr, 2);
        assert_eq!(zdr.serving(), Some(2));
        assert_eq!(zdr.client(&["scale", "1"]).code, 0);
        wait_for_serving(&zdr, 1);
        nothing_lost(&zdr, load);
    }
}

#[test]
fn a_number_that_cannot_be_is_refused_with_the_reason() {
    let zdr = Setup::of(&sample(&[])).option("-n", "2").start();
    for (number, words) in [("-2", "there are 2 instances, and from 1 to 256 can be"), ("+255", "from 1 to 256")] {
        let told = zdr.client(&["scale", "--", number]);
        assert_eq!(told.code, 1, "{told:?}");
        assert!(told.error.contains(words), "{told:?}");
    }
    for number in ["0", "257", "two", ""] {
        assert_ne!(zdr.client(&["scale", number]).code, 0, "{number}");
    }
    assert_eq!(wait_for_serving(&zdr, 2).len(), 2);
}

#[test]
fn what_is_asked_for_during_a_reload_is_done_after_it() {
    let zdr = Setup::of(&sample(&["--start-after", "500ms"])).option("-n", "2").option("--bake", "0s").start();
    let reload = zdr.client_in_background(&["reload"]);
    zdr.wait_until("the reload to start", |status| in_seat(status, "starting") == Some(2));
    let told = zdr.client(&["scale", "3"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(reload.wait_with_output().unwrap().status.success());
    assert_eq!(wait_for_serving(&zdr, 3).len(), 3);
    assert_eq!(zdr.serving(), Some(2));
}

#[test]
fn ttin_and_ttou_are_one_more_and_one_fewer() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "0s").start();
    zdr.signal(Signal::SIGTTIN);
    wait_for_serving(&zdr, 2);
    zdr.signal(Signal::SIGTTIN);
    wait_for_serving(&zdr, 3);
    zdr.signal(Signal::SIGTTOU);
    wait_for_serving(&zdr, 2);
    assert_eq!(zdr.serving(), Some(2));
}

#[test]
fn a_reload_keeps_the_number_until_the_file_says_another() {
    let setup = Setup::of(&sample(&[])).option("--bake", "0s");
    let file = setup.place("zdr.toml");
    std::fs::write(&file, "instances = 2\n").unwrap();
    let zdr = setup.option("-c", &file).start();
    assert_eq!(zdr.client(&["scale", "3"]).code, 0);
    for _ in 0..2 {
        assert_eq!(zdr.reload().code, 0);
        assert_eq!(serving_instances(&zdr.status()).len(), 3);
    }
    std::fs::write(&file, "instances = 4\n").unwrap();
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(serving_instances(&zdr.status()).len(), 4);
}
