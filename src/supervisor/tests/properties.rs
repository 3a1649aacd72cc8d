//! What holds whatever happens: thousands of random sequences of events against a simulated system.

mod system;

use super::*;
use system::System;

const SEQUENCES: u64 = 2_500;
const LONGEST: u64 = 100;

#[test]
fn whatever_happens_the_promises_hold() {
    for seed in 0..SEQUENCES {
        let told = std::panic::catch_unwind(|| play(seed));
        assert!(told.is_ok(), "seed {seed}");
    }
}

fn play(seed: u64) {
    let mut system = System::new(seed);
    system.happens(Event::Boot);
    let steps = system.below(LONGEST);
    for _ in 0..steps {
        if !system.exited {
            system.something_happens();
        }
    }
    system.all_goes_well();
    if system.exited {
        return;
    }
    assert_eq!(system.stops, 0, "a stop that never ends");
    let supervisor = &system.story.supervisor;
    assert!(supervisor.serving.is_some(), "nobody serves although everybody could");
    if system.story.settings.policy.max_lifetime.is_some() {
        return;
    }
    let serving = supervisor.serving.as_ref();
    assert!(
        serving.is_some_and(|serving| serving.condition.why().is_none()),
        "one that does not do well was not replaced"
    );
    assert!(system.open_tickets.is_empty(), "no verdict for {:?}: {supervisor:?}", system.open_tickets);
    assert!(supervisor.draining.is_empty(), "drained for ever");
    assert!(supervisor.left.is_empty() && supervisor.farewells.is_empty(), "something was forgotten");
    assert!(system.known.values().all(|known| known.released || !known.living.is_empty()), "slots were lost");
}
