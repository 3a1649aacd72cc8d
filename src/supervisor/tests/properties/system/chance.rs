//! What happens by chance: events of every kind, and then all that is good.

use super::*;

impl System {
    fn any_of(&mut self, those: &[Instance]) -> Option<Instance> {
        let count = u64::try_from(those.len()).unwrap();
        if count == 0 { None } else { Some(those[usize::try_from(self.below(count)).unwrap()]) }
    }

    fn living(&mut self, wanted: impl Fn(&Known, bool) -> bool) -> Option<Instance> {
        let mut living = Vec::new();
        for (generation, known) in &self.known {
            let its = known.living.iter().filter(|(_, ready)| wanted(known, **ready));
            living.extend(its.map(|(number, _)| at(*generation, *number)));
        }
        self.any_of(&living)
    }

    fn dies(&mut self, instance: Instance) {
        self.of(instance.generation).living.remove(&instance.number);
        let exit = if self.below(4) == 0 { Exit::Code(0) } else { Exit::Signal(9) };
        self.happens(Event::Exited { instance, exit });
    }

    fn becomes_ready(&mut self, instance: Instance) {
        self.of(instance.generation).living.insert(instance.number, true);
        self.happens(Event::Ready { instance });
    }

    /// What had begun to come to one that is gone is there.
    fn is_left(&mut self) -> bool {
        let Some(dead) = self.known.iter().find_map(|(number, known)| known.behind.then_some(*number)) else {
            return false;
        };
        let waiting = usize::try_from(self.below(3)).unwrap();
        self.of(Generation(dead)).behind = false;
        self.happens(left(dead, waiting));
        true
    }

    fn hook_ends(&mut self, well: bool) -> bool {
        let Some((hook, generation)) = self.hooks.pop() else { return false };
        let failure = (!well && self.below(3) == 0).then(|| "exited with code 1".to_owned());
        self.happens(Event::HookEnded { hook, generation, failure });
        true
    }

    pub(in super::super) fn something_happens(&mut self) {
        match self.below(24) {
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
            5..=8 => {
                if let Some(instance) = self.living(|known, ready| !ready && !known.killed) {
                    self.becomes_ready(instance);
                }
            }
            9 => {
                if let Some(instance) = self.living(|known, _| known.quiesced) {
                    self.happens(quiet(instance.generation.0));
                }
            }
            10..=11 => {
                if let Some(instance) = self.living(|known, _| known.signalled || known.killed) {
                    self.dies(instance);
                }
            }
            12 => {
                if let Some(instance) = self.living(|_, _| true) {
                    self.dies(instance);
                }
            }
            13 => drop(self.is_left()),
            14..=15 => {
                if let Some(instance) = self.living(|_, _| true) {
                    let event = self.does_not_do_well(instance);
                    self.happens(event);
                }
            }
            16..=17 => drop(self.hook_ends(false)),
            18..=20 => {
                let event = self.operated();
                self.happens(event);
            }
            _ => self.time_passes(),
        }
    }

    /// What somebody may ask for.
    fn operated(&mut self) -> Event {
        match self.below(6) {
            0..=1 => Event::Rollback { ticket: self.ticket() },
            2 => {
                let to = u32::try_from(self.below(5)).unwrap();
                let by = i32::try_from(self.below(5)).unwrap() - 2;
                let scale = if self.below(2) == 0 { Scale::To(to) } else { Scale::By(by) };
                Event::Scale { ticket: self.ticket(), scale }
            }
            3 => Event::Pause { ticket: self.ticket(), time: Duration::from_secs(3) },
            4 => Event::Resume { ticket: self.ticket() },
            _ => Event::Changed { path: "src/a".into() },
        }
    }

    /// What a generation in any seat may say or show.
    fn does_not_do_well(&mut self, instance: Instance) -> Event {
        let generation = instance.generation;
        let sign = if self.below(2) == 0 { Sign::Answers } else { Sign::Watchdog(instance.number) };
        match self.below(9) {
            0..=1 => Event::Stuck { generation, sign, why: "no answer".to_owned() },
            2..=3 => Event::Recovered { generation, sign },
            4 => Event::Leaving { instance },
            5 => Event::Unready { instance },
            6 => Event::TooLarge { instance, why: "uses 2 GiB".to_owned() },
            7 => {
                let state = if self.below(2) == 0 { Health::Unhealthy } else { Health::Healthy };
                Event::Checked {
                    name: "db".to_owned(),
                    state,
                    message: "no".to_owned(),
                    critical: self.below(2) == 0,
                    was_well: self.below(4) != 0,
                }
            }
            _ => Event::ReadyAgain { instance },
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

    /// Everything that starts is ready, everything that is signalled ends, and time passes.
    pub(in super::super) fn all_goes_well(&mut self) {
        for _ in 0..400 {
            if self.exited {
                return;
            }
            if self.is_left() || self.hook_ends(true) {
                continue;
            }
            if let Some(instance) = self.living(|known, _| known.signalled || known.killed) {
                self.dies(instance);
            } else if let Some(instance) = self.living(|_, ready| !ready) {
                self.becomes_ready(instance);
            } else if let Some(instance) = self.living(|known, _| known.quiesced) {
                self.of(instance.generation).quiesced = false;
                self.happens(quiet(instance.generation.0));
            } else if self.story.supervisor.serving.is_none() && self.story.settings.policy.watched {
                self.happens(Event::Changed { path: "src/a".into() });
            } else {
                self.time_passes();
            }
        }
    }
}
