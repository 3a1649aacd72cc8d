//! A reload: the new one beside the old, proved, moved over; or refused with its reason.

use crate::harness::{Setup, in_seat, sample};

#[test]
fn a_reload_replaces_the_generation_once_the_new_one_is_ready() {
    let zdr = Setup::of(&sample(&[])).option("--ready", "/health").start();
    assert!(zdr.get("/").contains("generation 1"));
    let told = zdr.reload();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(zdr.get("/").contains("generation 2"));
    zdr.wait_until("the old one to drain", |status| in_seat(status, "draining").is_none());
}
