//! What holds whatever happens: thousands of random sequences of events against a simulated system.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const SEQUENCES: u64 = 6_000;
const LONGEST: u64 = 80;

/// What the simulated edges know of a process.
#[derive(Debug, Default, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what has happened to it, in any order")]
struct Process {
    alive: bool,
    signalled: bool,
    killed: bool,
    released: bool,
    quiesced: bool,
    ready: bool,
    behind: bool,
}

/// The edges, simulated: keeps the rules' promises to the kernel, and watches that they keep theirs.
struct System {
    story: Story,
    random: u64,
    processes: BTreeMap<u64, Process>,
    steered: Option<u64>,
    held: bool,
    open_tickets: BTreeSet<u64>,
    tickets: u64,
    exited: bool,
    stops: u32,
}

impl System {
    fn new(seed: u64) -> Self {
        let bake = if seed.is_multiple_of(2) { Duration::ZERO } else { Duration::from_secs(2) };
        let lame_duck = if seed.is_multiple_of(3) { Duration::from_secs(1) } else { Duration::ZERO };
        Self {
            story: Story::with(bake, lame_duck),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            processes: BTreeMap::new(),
            steered: None,
            held: false,
            open_tickets: BTreeSet::new(),
            tickets: 0,
            exited: false,
            stops: 0,
        }
    }

    /// xorshift64: a random number below `limit`, the same for the same seed.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        self.open_tickets.insert(self.tickets);
        Ticket(self.tickets)
    }

    fn happens(&mut self, event: Event) {
        let mut inbox = vec![event];
        while let Some(event) = inbox.pop() {
            let actions = self.story.supervisor.handle(event, self.story.now);
            for action in actions {
                inbox.extend(self.perform(action));
            }
            self.check_seats();
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "as the real edges take it")]
    fn perform(&mut self, action: Action) -> Option<Event> {
        assert!(!self.exited, "{action:?} after the end");
        match action {
            Action::Spawn { generation, place, .. } => return Some(self.spawn(generation, place)),
            Action::Probe(generation) => assert!(self.process(generation).alive),
            Action::Steer(generation) => {
                assert!(self.process(generation).alive, "steered to the dead");
                assert!(!self.process(generation).signalled, "steered to one that was asked to finish");
                self.steered = Some(generation.0);
            }
            Action::Hold => self.held = true,
            Action::Quiesce(generation) => {
                assert!(self.steered != Some(generation.0) || self.held, "quiesced while it gets what is new");
                assert!(self.process(generation).alive);
                self.process(generation).quiesced = true;
            }
            Action::Signal(generation) => {
                let restarting = self.story.supervisor.awaited == Some(generation);
                let stopping = self.story.supervisor.stop.is_some();
                let gets_new = self.steered == Some(generation.0) && !self.held;
                assert!(!gets_new || restarting || stopping, "signalled while new connections go to it");
                let process = self.process(generation);
                assert!(
                    process.alive && !process.signalled && !process.killed,
                    "signalled twice, or dead: {process:?}"
                );
                process.signalled = true;
            }
            Action::Kill(generation) => {
                let process = self.process(generation);
                assert!(!(process.alive && process.killed), "killed twice");
                process.killed = process.alive;
            }
            Action::LookBehind(generation) => {
                assert!(self.steered != Some(generation.0), "looked behind while it gets what is new");
                let process = self.process(generation);
                assert!(!process.alive && !process.released && !process.behind, "not a dead one's slot: {process:?}");
                process.behind = true;
            }
            Action::Release(generation) => {
                let process = self.process(generation);
                assert!(!process.alive && !process.released && !process.behind, "released alive or twice: {process:?}");
                process.released = true;
            }
            Action::Tell(_) => {}
            Action::Answer(ticket, _) => {
                assert!(self.open_tickets.remove(&ticket.0), "answered twice");
            }
            Action::Exit(_) => {
                assert!(self.processes.values().all(|process| !process.alive), "left somebody behind");
                assert!(self.open_tickets.is_empty(), "left without a verdict: {:?}", self.open_tickets);
                self.exited = true;
            }
        }
        None
    }

    fn process(&mut self, generation: Generation) -> &mut Process {
        self.processes.get_mut(&generation.0).expect("only known generations are spoken of")
    }

    fn spawn(&mut self, generation: Generation, place: Place) -> Event {
        assert!(self.processes.keys().all(|known| *known < generation.0), "generations only grow");
        if let Place::Of(dead) = place {
            assert!(!self.process(dead).alive && !self.process(dead).released, "took the slot of one that lives");
        }
        let alive = self.below(8) != 0;
        self.processes.insert(generation.0, Process { alive, ..Process::default() });
        if alive {
            spawned(generation.0)
        } else {
            let code = (self.below(2) == 0).then_some(127);
            Event::SpawnFailed { generation, why: "no".to_owned(), code }
        }
    }

    fn living(&mut self, wanted: impl Fn(&Process) -> bool) -> Option<u64> {
        let living: Vec<u64> = self
            .processes
            .iter()
            .filter(|(_, process)| process.alive && wanted(process))
            .map(|(number, _)| *number)
            .collect();
        let count = u64::try_from(living.len()).unwrap();
        if count == 0 { None } else { Some(living[usize::try_from(self.below(count)).unwrap()]) }
    }

    fn dies(&mut self, generation: u64) {
        self.process(Generation(generation)).alive = false;
        self.happens(exited(generation));
    }

    /// What had begun to come to one that died is there.
    fn is_left(&mut self) -> bool {
        let Some(dead) = self.processes.iter().find_map(|(number, process)| process.behind.then_some(*number)) else {
            return false;
        };
        let waiting = usize::try_from(self.below(3)).unwrap();
        self.process(Generation(dead)).behind = false;
        self.happens(left(dead, waiting));
        true
    }

    fn something_happens(&mut self) {
        match self.below(17) {
            0..=2 => {
                let ticket = self.ticket();
                let until = if self.below(3) == 0 { Until::Drained } else { Until::Serving };
                self.happens(Event::Reload { ticket, command: None, until });
            }
            3 => {
                let ticket = self.ticket();
                self.happens(Event::Restart { ticket });
            }
            4 if self.below(6) == 0 => {
                self.stops += 1;
                let ticket = self.ticket();
                self.happens(Event::Stop { ticket });
            }
            5..=7 => {
                if let Some(generation) = self.living(|process| !process.ready && !process.killed) {
                    self.process(Generation(generation)).ready = true;
                    self.happens(ready(generation));
                }
            }
            8 => {
                if let Some(generation) = self.living(|process| process.quiesced) {
                    self.happens(quiet(generation));
                }
            }
            9..=10 => {
                if let Some(generation) = self.living(|process| process.signalled || process.killed) {
                    self.dies(generation);
                }
            }
            11 => {
                if let Some(generation) = self.living(|_| true) {
                    self.dies(generation);
                }
            }
            12 => drop(self.is_left()),
            13..=14 => {
                if let Some(generation) = self.living(|_| true) {
                    let event = self.does_not_do_well(Generation(generation));
                    self.happens(event);
                }
            }
            _ => self.time_passes(),
        }
    }

    /// What a generation in any seat may say or show.
    fn does_not_do_well(&mut self, generation: Generation) -> Event {
        let sign = if self.below(2) == 0 { Sign::Answers } else { Sign::Watchdog };
        match self.below(7) {
            0..=1 => Event::Stuck { generation, sign, why: "no answer".to_owned() },
            2..=3 => Event::Recovered { generation, sign },
            4 => Event::Leaving { generation },
            5 => Event::Unready { generation },
            _ => Event::ReadyAgain { generation },
        }
    }

    fn time_passes(&mut self) {
        if let Some(deadline) = self.story.supervisor.next_deadline() {
            self.story.now = self.story.now.max(deadline);
            self.happens(Event::Elapsed);
            let next = self.story.supervisor.next_deadline();
            assert!(self.exited || next.is_none_or(|next| next > self.story.now), "a deadline was not dealt with");
        }
    }

    fn check_seats(&self) {
        let supervisor = &self.story.supervisor;
        if self.exited {
            return;
        }
        let mut seated = BTreeSet::new();
        seated.extend(supervisor.starting.iter().map(|at| at.generation.0));
        seated.extend(supervisor.serving.iter().map(|at| at.generation.0));
        seated.extend(supervisor.draining.iter().map(|at| at.generation.0));
        for (number, process) in &self.processes {
            assert!(!process.alive || seated.contains(number), "generation {number} lives and has no seat");
        }
        if let Some(serving) = &supervisor.serving {
            assert_eq!(self.steered, Some(serving.generation.0), "who serves gets what is new");
        }
        let waits_for_somebody =
            supervisor.next_deadline().is_some() || self.processes.values().any(|process| process.alive);
        assert!(supervisor.serving.is_some() || waits_for_somebody || seated.is_empty(), "stuck with nobody serving");
    }

    /// Everything that starts is ready, everything that is signalled ends, and time passes.
    fn all_goes_well(&mut self) {
        for _ in 0..200 {
            if self.exited {
                return;
            }
            if self.is_left() {
                continue;
            }
            if let Some(generation) = self.living(|process| process.signalled || process.killed) {
                self.dies(generation);
            } else if let Some(generation) = self.living(|process| !process.ready) {
                self.process(Generation(generation)).ready = true;
                self.happens(ready(generation));
            } else if let Some(generation) = self.living(|process| process.quiesced) {
                self.process(Generation(generation)).quiesced = false;
                self.happens(quiet(generation));
            } else {
                self.time_passes();
            }
        }
    }
}

#[test]
fn whatever_happens_the_promises_hold() {
    for seed in 0..SEQUENCES {
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
            continue;
        }
        assert_eq!(system.stops, 0, "seed {seed}: a stop that never ends");
        let serving = system.story.supervisor.serving.as_ref();
        assert!(serving.is_some(), "seed {seed}: nobody serves although everybody could");
        assert!(
            serving.is_some_and(|serving| serving.condition.why().is_none()),
            "seed {seed}: one that does not do well was not replaced"
        );
        assert!(system.open_tickets.is_empty(), "seed {seed}: no verdict for {:?}", system.open_tickets);
        assert!(system.story.supervisor.draining.is_empty(), "seed {seed}: drained for ever");
    }
}
