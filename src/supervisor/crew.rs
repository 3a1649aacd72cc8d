//! The instances of a generation: who is there, who is due, who has proved itself.
//!
//! Knows nothing of seats; what follows from a change is decided by the rules.

use std::collections::BTreeMap;
use std::time::Instant;

/// The instances of a generation, by their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Crew {
    members: BTreeMap<u32, Member>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) stage: Stage,
    /// Its main process; None until it was executed.
    pub(super) pid: Option<i32>,
    /// When it came to this stage.
    pub(super) since: Instant,
    /// What its last probe was answered.
    pub(super) last_answer: Option<String>,
    /// How often in a row this number has ended too soon.
    pub(super) failures: u32,
}

/// How far an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is to be started, at that time.
    Due(Instant),
    /// Its command is being executed.
    Spawning,
    /// It has to be ready by then.
    Proving(Instant),
    /// It has proved that it can serve.
    Ready,
}

impl Member {
    fn due(at: Instant, failures: u32) -> Self {
        Self { stage: Stage::Due(at), pid: None, since: at, last_answer: None, failures }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }
}

impl Crew {
    /// So many, all of them due.
    pub(super) fn of(number: u32, now: Instant) -> Self {
        Self { members: (1..=number).map(|number| (number, Member::due(now, 0))).collect() }
    }

    /// Makes it this many: the missing ones are due.
    pub(super) fn fill(&mut self, number: u32, now: Instant) {
        for number in 1..=number {
            self.members.entry(number).or_insert_with(|| Member::due(now, 0));
        }
    }

    /// This number is to be started again.
    pub(super) fn is_due(&mut self, number: u32, at: Instant, failures: u32) {
        self.members.insert(number, Member::due(at, failures));
    }

    /// Those that are not started yet will not be; true where there was one.
    pub(super) fn dismiss_the_due(&mut self) -> bool {
        let all = self.members.len();
        self.members.retain(|_, member| !matches!(member.stage, Stage::Due(_)));
        self.members.len() < all
    }

    /// Those that were started and cannot serve yet leave it.
    pub(super) fn dismiss_the_unready(&mut self) -> Vec<u32> {
        let unready = self.members.iter().filter(|(_, member)| !member.is_ready());
        let unready: Vec<u32> = unready.map(|(number, _)| *number).collect();
        self.members.retain(|_, member| member.is_ready());
        unready
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Member> {
        self.members.get_mut(&number)
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Member> {
        self.members.remove(&number)
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// All of them, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Member)> {
        self.members.iter().map(|(number, member)| (*number, member))
    }

    /// The numbers of those that can serve.
    pub(super) fn ready(&self) -> Vec<u32> {
        self.iter().filter(|(_, member)| member.is_ready()).map(|(number, _)| number).collect()
    }

    /// True where there is a process.
    pub(super) fn lives(&self) -> bool {
        self.members.values().any(|member| member.pid.is_some())
    }

    /// True where all of them can serve.
    pub(super) fn is_complete(&self) -> bool {
        self.members.values().all(Member::is_ready)
    }

    /// How many are on their way.
    pub(super) fn proving(&self) -> u32 {
        let on_their_way = |member: &&Member| matches!(member.stage, Stage::Spawning | Stage::Proving(_));
        u32::try_from(self.members.values().filter(on_their_way).count()).unwrap_or(u32::MAX)
    }

    pub(super) fn is_spawning(&self) -> bool {
        self.members.values().any(|member| member.stage == Stage::Spawning)
    }

    /// The first that is to be started by now.
    pub(super) fn next_due(&self, now: Instant) -> Option<u32> {
        let due = |member: &Member| matches!(member.stage, Stage::Due(at) if at <= now);
        self.iter().find(|(_, member)| due(member)).map(|(number, _)| number)
    }

    /// The first whose time is up without being ready.
    pub(super) fn late(&self, now: Instant) -> Option<u32> {
        let late = |member: &Member| matches!(member.stage, Stage::Proving(by) if by <= now);
        self.iter().find(|(_, member)| late(member)).map(|(number, _)| number)
    }

    /// When the next of them is due, or has to be ready.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let each = self.members.values().filter_map(|member| match member.stage {
            Stage::Due(at) | Stage::Proving(at) => Some(at),
            Stage::Spawning | Stage::Ready => None,
        });
        each.min()
    }

    /// When the next of them has to be ready.
    pub(super) fn late_by(&self) -> Option<Instant> {
        let each = self.members.values().filter_map(|member| match member.stage {
            Stage::Proving(at) => Some(at),
            Stage::Due(_) | Stage::Spawning | Stage::Ready => None,
        });
        each.min()
    }

    /// The main process of the first that has one.
    pub(super) fn pid(&self) -> Option<i32> {
        self.members.values().find_map(|member| member.pid)
    }
}
