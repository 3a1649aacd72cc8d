//! The instances of the generations: started, heard, probed, watched and ended.
//!
//! Decides nothing: what follows from all of it is told as events.

use std::ffi::OsString;
use std::time::Duration;

use tracing::{error, warn};

use super::capture::Watch;
use super::cgroup::ControlGroup;
use super::child::Start;
use super::connections::{Holder, MARKER, marker};
use super::kernel::allocator::give_back;
use super::kernel::code;
use super::kernel::keeper::Keeper;
use super::kernel::pidfd::PidFd;
use super::last_words::Outlet;
use super::probe::{Probe, hints};
use super::quiesce::Quiesce;
use super::ready_sockets::ReadySockets;
use super::release::Release;
use super::task::Task;
use super::watchdog::Watchdog;
use super::{Edges, WRONG_USE, failed, only_instance, processes, reaper, tree};
use crate::config::Capture;
use crate::supervisor::{Event, Exit, Generation, Instance, Place, QueueMode};

/// The instance of a generation, and the tasks that are about it.
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
    pub(super) quiesce: Option<Task>,
    pub(super) notify: Option<Task>,
    pub(super) capture: Option<Watch>,
    /// Asked while it serves.
    pub(super) live: Option<Task>,
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
    /// What it was started from.
    pub(super) release: Release,
    /// Where all its processes are; None where there are no groups.
    pub(super) control_group: Option<ControlGroup>,
}

impl Child {
    fn holder(&self, generation: Generation) -> Holder {
        Holder { generation, root: self.pid, control_group: self.control_group.clone() }
    }
}

impl Edges {
    pub(super) fn spawn(&mut self, generation: Generation, command: &[OsString], place: Place) -> Event {
        let fail = |why: String, code| Event::SpawnFailed { generation, why, code };
        let admin = self.admin.address().path().to_owned();
        let mut release = match Release::take(generation, &self.config.process, command) {
            Ok(release) => release,
            Err(error) => return fail(error.to_string(), Some(WRONG_USE)),
        };
        let sockets = match ReadySockets::bind(&self.notify, generation) {
            Ok(sockets) => sockets,
            Err(error) => {
                return fail(format!("cannot make {}: {error}", self.notify.path(generation).display()), None);
            }
        };
        let lent = match self.listeners.lend(only_instance(generation), place, QueueMode::Shared) {
            Ok(lent) => lent,
            Err(error) => return fail(error.to_string(), None),
        };
        let captures = self.config.capture != Capture::Nothing;
        // Before the instance, so that it is there when that begins to make calls.
        let keeper = match captures.then(Keeper::start).transpose() {
            Ok(keeper) => keeper,
            Err(error) => return fail(format!("cannot start what answers for zdr when it is gone: {error}"), None),
        };
        let control_group = self.control_groups.make(generation);
        let user = self.identity.as_ref().and_then(|identity| identity.ids.as_ref()).map(|ids| ids.uid);
        let outlet = self.relays.start(generation, user);
        let start = Start {
            instance: Instance { generation, number: 1 },
            process: &self.config.process,
            identity: self.identity.as_ref(),
            control_group: control_group.as_ref().map(ControlGroup::directory),
            outlets: outlet.as_ref().map_or([None; 2], Outlet::ends),
            said_on: Some(sockets.paths()),
            watchdog: self.config.watchdog,
            admin: &admin,
            lent,
            capture: keeper.as_ref(),
        };
        let started = start.first(&mut release);
        failed("watch the names of Unix sockets", self.names.add(self.listeners.files()));
        match started {
            Ok(spawned) => {
                let listen = Task::start(sockets.listen(generation, self.owner.clone()));
                self.keepers.extend(keeper.as_ref().map(Keeper::pid));
                let watch = spawned.notify.zip(keeper);
                let watch =
                    watch.map(|(notify, keeper)| Watch::start(keeper.keep(notify), generation, self.owner.clone()));
                let capture = watch.transpose().unwrap_or_else(|error| {
                    error!(%generation, %error, "cannot watch its system calls");
                    None
                });
                let child = Child {
                    pid: spawned.pid,
                    pidfd: spawned.pidfd,
                    started: processes::started(spawned.pid).unwrap_or(u64::MAX),
                    alive: true,
                    accepted: false,
                    probe: None,
                    quiesce: None,
                    notify: Some(listen),
                    release,
                    control_group,
                    capture,
                    live: None,
                    watchdog: None,
                    watchdog_time: None,
                    status_text: None,
                    unready: false,
                    said_too_early: None,
                    trouble: None,
                };
                self.children.insert(generation, child);
                Event::Spawned { generation, pid: spawned.pid }
            }
            Err(error) => {
                self.control_groups.leave(control_group);
                fail(error.to_string(), error.code())
            }
        }
    }

    pub(super) fn probe(&mut self, generation: Generation) {
        let Some(child) = self.children.get_mut(&generation) else { return };
        let (readiness, owner) = (self.config.readiness.clone(), self.owner.clone());
        let probe = Probe { generation, readiness, captures: self.config.capture != Capture::Nothing, owner };
        child.probe = Some(Task::start(probe.run()));
    }

    /// Starts a task that looks at the slot of a generation.
    pub(super) fn watch<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        generation: Generation,
        task: impl FnOnce(Quiesce) -> F,
    ) {
        let known = self.known();
        let sockets = match self.listeners.watch(generation) {
            Ok(sockets) => sockets,
            Err(error) => {
                error!(%generation, %error, "cannot watch its queue");
                Vec::new()
            }
        };
        let Some(child) = self.children.get_mut(&generation) else { return };
        let idle = self.config.drain.idle;
        let holder = child.holder(generation);
        let quiesce = Quiesce { holder, known, sockets, idle, owner: self.owner.clone() };
        child.quiesce = Some(Task::start(task(quiesce)));
    }

    pub(super) fn kill(&mut self, generation: Generation) {
        self.end_errands(generation);
        if let Some(child) = self.children.get_mut(&generation) {
            (child.probe, child.quiesce) = (None, None);
        }
        if let Some(child) = self.children.get(&generation) {
            child.control_group.iter().for_each(ControlGroup::kill);
            tree::kill(|| self.tree(generation, child));
        }
    }

    /// Processes that are nobody's orphans.
    pub(super) fn known(&self) -> Vec<i32> {
        let mut known: Vec<i32> = self.roots().into_iter().map(|(_, root)| root).collect();
        known.extend(self.errands.keys());
        known.extend(&self.keepers);
        known.extend(self.relays.processes());
        known
    }

    pub(super) fn tree(&self, generation: Generation, child: &Child) -> Vec<i32> {
        let mut known = self.known();
        known.extend(self.orphans_of_others(&known));
        let mut tree = if child.alive { processes::tree(child.pid) } else { Vec::new() };
        tree.extend(processes::orphans(&known, &marker(generation)));
        // One that has emptied its environment is ended with the only generation that can have started it.
        let may_be_others = |started: u64| {
            let mut others = self.children.iter().filter(|(other, child)| child.alive && **other != generation);
            others.any(|(_, other)| other.started <= started)
        };
        let unmarked = processes::unmarked_orphans(&known, MARKER);
        let own = unmarked.into_iter().filter(|(_, started)| child.started <= *started && !may_be_others(*started));
        tree.extend(own.flat_map(|(pid, _)| processes::tree(pid)));
        tree.extend(child.control_group.iter().flat_map(ControlGroup::processes));
        tree
    }

    pub(super) fn release(&mut self, generation: Generation) {
        let child = self.children.remove(&generation);
        self.control_groups.leave(child.and_then(|child| child.control_group));
        self.relays.forget(generation);
        let dropped = self.listeners.release(generation);
        if dropped > 0 {
            warn!(%generation, dropped, "connections that nobody was left to answer were closed");
        }
        give_back();
        code::let_go();
    }

    /// The generations that live.
    pub(super) fn holders(&self) -> Vec<Holder> {
        let living = self.children.iter().filter(|(_, child)| child.alive);
        living.map(|(generation, child)| child.holder(*generation)).collect()
    }

    pub(super) fn roots(&self) -> Vec<(Generation, i32)> {
        self.children
            .iter()
            .filter(|(_, child)| child.alive)
            .map(|(generation, child)| (*generation, child.pid))
            .collect()
    }

    pub(super) fn reap(&mut self) {
        self.mend();
        self.control_groups.sweep();
        self.relays.tidy();
        for (pid, exit) in reaper::reap() {
            if self.keepers.remove(&pid) || self.relays.ended(pid, exit) {
                continue;
            }
            if let Some(errand) = self.errands.remove(&pid) {
                self.errand_over(errand, exit);
            } else if let Some((generation, child)) = self.children.iter_mut().find(|(_, child)| child.pid == pid) {
                child.alive = false;
                // One that drains is not asked why it ended.
                let drains = child.quiesce.is_some();
                (child.probe, child.quiesce, child.notify) = (None, None, None);
                (child.live, child.watchdog) = (None, None);
                let (generation, accepted) = (*generation, child.accepted);
                let answer = self.hint_at_exit(generation, exit).filter(|_| !accepted);
                self.inbox.extend(answer.map(|answer| Event::NotReady { generation, answer }));
                self.inbox.extend(if drains { None } else { self.wrote(generation) });
                self.inbox.push_back(Event::Exited { generation, exit });
            }
        }
    }

    /// Of those that are not ready yet.
    pub(super) fn what_the_late_wrote(&self) -> Vec<Event> {
        let is_late = |child: &Child| child.probe.as_ref().is_some_and(Task::is_running);
        let late = self.children.iter().filter(|(_, child)| is_late(child));
        late.filter_map(|(generation, _)| self.wrote(*generation)).collect()
    }

    fn wrote(&self, generation: Generation) -> Option<Event> {
        self.relays.last_lines(generation).map(|lines| Event::Wrote { generation, lines })
    }

    /// A command that fails before it has accepted anything may have bound the address itself, which zdr has. One like it has
    /// never been ready then, so a bad release of a server that takes its sockets is not suspected.
    fn hint_at_exit(&self, generation: Generation, exit: Exit) -> Option<String> {
        // What a shell exits with when it does not find or may not execute something says enough.
        let failed = matches!(exit, Exit::Code(code) if ![0, 126, 127].contains(&code));
        if self.served || !failed || self.config.capture != Capture::Nothing {
            return None;
        }
        self.listeners.watch(generation).ok()?.first().map(|at| hints::at_exit(&at.listener))
    }
}
