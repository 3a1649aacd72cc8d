//! The instances of the generations: started, heard, probed, watched and ended.
//!
//! Decides nothing: what follows from all of it is told as events.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tracing::{error, warn};

use super::capture::Watch;
use super::cgroup::ControlGroup;
use super::child::Start;
use super::connections::{Holder, MARKER, marker};
use super::generations::Settings;
use super::kernel::allocator::give_back;
use super::kernel::code;
use super::kernel::keeper::Keeper;
use super::kernel::pidfd::PidFd;
use super::last_words::Outlet;
use super::probe::{Giver, Probe, hints};
use super::quiesce::Quiesce;
use super::ready_sockets::ReadySockets;
use super::release::Release;
use super::task::Task;
use super::watchdog::Watchdog;
use super::{Edges, WRONG_USE, failed, processes, reaper, tree};
use crate::config::Capture;
use crate::supervisor::{Event, Exit, Generation, Instance, Place};

/// An instance, and the tasks that are about it.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) pidfd: PidFd,
    /// In clock ticks since boot.
    pub(super) started: u64,
    /// False once it was reaped: its number may be somebody else's.
    pub(super) alive: bool,
    /// It has accepted a connection of its probe.
    pub(super) accepted: bool,
    pub(super) probe: Option<Task>,
    /// By which its probe is given connections that it has taken from others.
    pub(super) taken: Option<Giver>,
    pub(super) notify: Option<Task>,
    pub(super) capture: Option<Watch>,
    /// Armed while it serves.
    pub(super) watchdog: Option<Watchdog>,
    /// The time that it has asked for instead of the one of the settings.
    pub(super) watchdog_time: Option<Duration>,
    /// The last of what it has said of its status.
    pub(super) status_text: Option<String>,
    /// Its last word about it was READY=0.
    pub(super) unready: bool,
    /// Who has said READY=1 before it listened where the serving generation does.
    pub(super) said_too_early: Option<i32>,
    /// Why what it binds by itself cannot be taken over.
    pub(super) trouble: Option<String>,
    /// Where all its processes are; None where there are no groups.
    pub(super) control_group: Option<ControlGroup>,
}

impl Child {
    fn holder(&self, instance: Instance) -> Holder {
        Holder { instance, root: self.pid, control_group: self.control_group.clone() }
    }
}

impl Edges {
    pub(super) fn spawn(&mut self, instance: Instance, command: &[OsString], place: Place) -> Event {
        match self.start(instance, command, place) {
            Ok(pid) => Event::Spawned { instance, pid },
            Err((why, code)) => Event::SpawnFailed { instance, why, code },
        }
    }

    /// Its process id, or why there is none and what a shell would exit with.
    fn start(&mut self, instance: Instance, command: &[OsString], place: Place) -> Result<i32, (String, Option<i32>)> {
        let generation = instance.generation;
        let admin = self.admin.address().path().to_owned();
        let settings = self.settings_of(generation);
        let Settings { config, identity, notify, .. } = &*settings;
        let sockets = ReadySockets::bind(notify, instance)
            .map_err(|error| (format!("cannot make {}: {error}", notify.path(instance).display()), None))?;
        let before = self.known.get(&generation).and_then(|known| known.release.clone());
        let mut fresh = match before {
            Some(_) => None,
            None => Some(
                Release::take(generation, &config.process, command)
                    .map_err(|error| (error.to_string(), Some(WRONG_USE)))?,
            ),
        };
        let lent =
            self.listeners.lend(instance, place, config.policy.queue).map_err(|error| (error.to_string(), None))?;
        let captures = config.capture != Capture::Nothing;
        // Before the instance, so that it is there when that begins to make calls.
        let keeper = captures
            .then(Keeper::start)
            .transpose()
            .map_err(|error| (format!("cannot start what answers for zdr when it is gone: {error}"), None))?;
        let control_group = self.control_groups.make(instance);
        let user = identity.as_ref().and_then(|identity| identity.ids.as_ref()).map(|ids| ids.uid);
        let outlet = self.relays.start(instance, user, config.tail);
        let start = Start {
            instance,
            process: &config.process,
            identity: identity.as_ref(),
            control_group: control_group.as_ref().map(ControlGroup::directory),
            outlets: outlet.as_ref().map_or([None; 2], Outlet::ends),
            said_on: Some(sockets.paths()),
            watchdog: config.watchdog,
            admin: &admin,
            lent,
            capture: keeper.as_ref(),
        };
        let started = match (&before, &mut fresh) {
            (Some(release), _) => start.again(release),
            (None, Some(release)) => start.first(release),
            (None, None) => unreachable!("one that was not there before is fresh"),
        };
        failed("watch the names of Unix sockets", self.names.add(self.listeners.files()));
        let spawned = match started {
            Ok(spawned) => spawned,
            Err(error) => {
                self.control_groups.leave(control_group);
                return Err((error.to_string(), error.code()));
            }
        };
        if let (Some(known), Some(release)) = (self.known.get_mut(&generation), fresh) {
            known.release = Some(Arc::new(release));
        }
        let listen = Task::start(sockets.listen(instance, self.owner.clone()));
        self.keepers.extend(keeper.as_ref().map(Keeper::pid));
        let watch = spawned.notify.zip(keeper);
        let watch = watch.map(|(notify, keeper)| Watch::start(keeper.keep(notify), instance, self.owner.clone()));
        let capture = watch.transpose().unwrap_or_else(|error| {
            error!(%instance, %error, "cannot watch its system calls");
            None
        });
        let child = Child {
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            started: processes::started(spawned.pid).unwrap_or(u64::MAX),
            alive: true,
            accepted: false,
            probe: None,
            taken: None,
            notify: Some(listen),
            control_group,
            capture,
            watchdog: None,
            watchdog_time: None,
            status_text: None,
            unready: false,
            said_too_early: None,
            trouble: None,
        };
        self.children.insert(instance, child);
        Ok(spawned.pid)
    }

    pub(super) fn probe(&mut self, instance: Instance) {
        let settings = self.settings_of(instance.generation);
        let Some(child) = self.children.get_mut(&instance) else { return };
        let (readiness, owner) = (settings.config.readiness.clone(), self.owner.clone());
        let probe = Probe { instance, readiness, captures: settings.config.capture != Capture::Nothing, owner };
        let (giver, taken) = unbounded_channel();
        (child.taken, child.probe) = (Some(giver), Some(Task::start(probe.run(taken))));
    }

    /// The instances of a generation.
    pub(super) fn of(&self, generation: Generation) -> impl Iterator<Item = (Instance, &Child)> {
        let its = self.children.iter().filter(move |(instance, _)| instance.generation == generation);
        its.map(|(instance, child)| (*instance, child))
    }

    /// Holds back what only a generation serves that gets nothing new, and starts a task that looks at its slots.
    pub(super) fn retire<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        generation: Generation,
        task: impl FnOnce(Quiesce) -> F,
    ) {
        failed("hold what only an old generation serves", self.listeners.retire(generation));
        let known = self.known_processes();
        let sockets = match self.listeners.watch(generation) {
            Ok(sockets) => sockets,
            Err(error) => {
                error!(%generation, %error, "cannot watch its queue");
                Vec::new()
            }
        };
        let holders = self.of(generation).map(|(instance, child)| child.holder(instance)).collect();
        let idle = self.settings_of(generation).config.drain.idle;
        let quiesce = Quiesce { generation, holders, known, sockets, idle, owner: self.owner.clone() };
        let task = Task::start(task(quiesce));
        self.looks.insert(generation, task);
    }

    pub(super) fn signal(&self, generation: Generation) {
        let signal = self.settings_of(generation).config.drain.signal;
        for (_, child) in self.of(generation).filter(|(_, child)| child.alive) {
            failed("send the drain signal", child.pidfd.signal(signal));
        }
    }

    pub(super) fn kill(&mut self, generation: Generation) {
        self.end_errands(generation);
        self.looks.remove(&generation);
        let its: Vec<Instance> = self.of(generation).map(|(instance, _)| instance).collect();
        for instance in its {
            self.kill_one(instance);
        }
    }

    fn kill_one(&mut self, instance: Instance) {
        if let Some(child) = self.children.get_mut(&instance) {
            child.probe = None;
        }
        if let Some(child) = self.children.get(&instance) {
            child.control_group.iter().for_each(ControlGroup::kill);
            tree::kill(|| self.tree(instance, child));
        }
    }

    /// What is left of one whose generation lives on.
    pub(super) fn bury(&mut self, instance: Instance) {
        self.end_errands_of(instance);
        self.kill_one(instance);
        self.forget(instance);
        self.listeners.leave(instance);
    }

    fn forget(&mut self, instance: Instance) {
        let child = self.children.remove(&instance);
        // Its end is nobody's news any more, but it is to be reaped.
        self.buried.extend(child.as_ref().filter(|child| child.alive).map(|child| child.pid));
        self.control_groups.leave(child.and_then(|child| child.control_group));
        self.relays.forget(instance);
    }

    /// Processes that are nobody's orphans.
    pub(super) fn known_processes(&self) -> Vec<i32> {
        let mut known: Vec<i32> = self.roots().into_iter().map(|(_, root)| root).collect();
        known.extend(self.errands.keys());
        known.extend(&self.keepers);
        known.extend(&self.buried);
        known.extend(self.relays.processes());
        known
    }

    pub(super) fn tree(&self, instance: Instance, child: &Child) -> Vec<i32> {
        let mut known = self.known_processes();
        known.extend(self.orphans_of_others(&known));
        let mut tree = if child.alive { processes::tree(child.pid) } else { Vec::new() };
        tree.extend(processes::orphans(&known, &marker(instance)));
        // One that has emptied its environment is ended with the only generation that can have started it.
        let may_be_others = |started: u64| {
            let mut others = self.children.iter().filter(|(other, child)| child.alive && **other != instance);
            others.any(|(_, other)| other.started <= started)
        };
        let unmarked = processes::unmarked_orphans(&known, MARKER);
        let own = unmarked.into_iter().filter(|(_, started)| child.started <= *started && !may_be_others(*started));
        tree.extend(own.flat_map(|(pid, _)| processes::tree(pid)));
        tree.extend(child.control_group.iter().flat_map(ControlGroup::processes));
        tree
    }

    pub(super) fn release(&mut self, generation: Generation) {
        self.looks.remove(&generation);
        let its: Vec<Instance> = self.of(generation).map(|(instance, _)| instance).collect();
        for instance in its {
            self.forget(instance);
        }
        let dropped = self.listeners.release(generation);
        if dropped > 0 {
            warn!(%generation, dropped, "connections that nobody was left to answer were closed");
        }
        give_back();
        code::let_go();
    }

    /// The instances that live.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let living = self.children.iter().filter(|(_, child)| child.alive);
        living.map(|(instance, child)| child.holder(*instance)).collect()
    }

    pub(super) fn roots(&self) -> Vec<(Instance, i32)> {
        let living = self.children.iter().filter(|(_, child)| child.alive);
        living.map(|(instance, child)| (*instance, child.pid)).collect()
    }

    pub(super) fn reap(&mut self) {
        self.mend();
        self.control_groups.sweep();
        self.relays.tidy();
        for (pid, exit) in reaper::reap() {
            if self.keepers.remove(&pid) || self.relays.ended(pid, exit) {
                continue;
            }
            if self.buried.remove(&pid) {
                continue;
            }
            if let Some(errand) = self.errands.remove(&pid) {
                self.errand_over(errand, exit);
            } else if let Some((instance, child)) = self.children.iter_mut().find(|(_, child)| child.pid == pid) {
                let instance = *instance;
                child.alive = false;
                // One that drains is not asked why it ended.
                let drains = self.looks.contains_key(&instance.generation);
                (child.probe, child.notify, child.watchdog) = (None, None, None);
                let accepted = child.accepted;
                let answer = self.hint_at_exit(instance, exit).filter(|_| !accepted);
                self.inbox.extend(answer.map(|answer| Event::NotReady { instance, answer }));
                self.inbox.extend(if drains { None } else { self.wrote(instance) });
                self.inbox.push_back(Event::Exited { instance, exit });
            }
        }
    }

    /// Of those that are not ready yet.
    pub(super) fn what_the_late_wrote(&self) -> Vec<Event> {
        let is_late = |child: &Child| child.probe.as_ref().is_some_and(Task::is_running);
        let late = self.children.iter().filter(|(_, child)| is_late(child));
        late.filter_map(|(instance, _)| self.wrote(*instance)).collect()
    }

    fn wrote(&self, instance: Instance) -> Option<Event> {
        self.relays.last_lines(instance).map(|lines| Event::Wrote { instance, lines })
    }

    /// A command that fails before it has accepted anything may have bound the address itself, which zdr has. One like it has
    /// never been ready then, so a bad release of a server that takes its sockets is not suspected.
    fn hint_at_exit(&self, instance: Instance, exit: Exit) -> Option<String> {
        // What a shell exits with when it does not find or may not execute something says enough.
        let failed = matches!(exit, Exit::Code(code) if ![0, 126, 127].contains(&code));
        let captures = self.settings_of(instance.generation).config.capture != Capture::Nothing;
        if self.served || !failed || captures {
            return None;
        }
        self.listeners.watch(instance.generation).ok()?.first().map(|at| hints::at_exit(&at.listener))
    }
}
