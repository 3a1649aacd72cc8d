//! All that zdr can sense and do, on one page: `next` notices, `perform` does.
//!
//! Decides nothing: an edge that wants an `if` about the state of a generation sends an event instead.

pub mod admin;
mod capture;
mod cgroup;
mod checks;
mod child;
mod connections;
mod counting;
pub mod diary;
mod einhorn;
pub mod environment_files;
mod errands;
pub mod executable;
mod figures;
#[cfg_attr(not(test), expect(dead_code, reason = "nothing starts it before there is an option for it"))]
mod file_watch;
mod heard;
mod http_server;
pub mod identity;
mod instances;
pub mod kernel;
mod last_words;
pub mod limits;
pub mod listeners;
mod liveness;
mod metrics;
mod names;
pub mod notice;
mod notify;
mod plain_text;
mod probe;
pub mod processes;
mod quiesce;
mod ready_sockets;
pub mod reaper;
mod release;
mod service_manager;
pub mod signals;
mod task;
pub mod text_file;
mod tree;
mod watchdog;
mod words;

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};
use std::{io, mem};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as Moment, sleep, sleep_until, timeout};
use tracing::error;

use self::admin::Admin;
use self::cgroup::ControlGroups;
use self::connections::Doors;
use self::errands::Errand;
use self::identity::Identity;
use self::instances::Child;
use self::kernel::code;
use self::last_words::Relays;
use self::listeners::{Listeners, Reach, Watched};
use self::names::Names;
use self::notice::{Notice, Owner, Picture, Question};
use self::notify::NotifyPlace;
use self::quiesce::Quiesce;
use self::service_manager::ServiceManager;
use self::signals::{Asked, Signals};
use crate::config::Config;
use crate::supervisor::{Action, Event, Generation, Instance, Portion, Status, Until};

/// The exit code of wrong use, for what was right when zdr began and is not any more.
const WRONG_USE: i32 = 2;

/// Everything zdr can sense and do.
#[derive(Debug)]
pub struct Edges {
    config: Config,
    listeners: Listeners,
    names: Names,
    admin: Admin,
    manager: ServiceManager,
    signals: Signals,
    owner: Owner,
    notices: mpsc::UnboundedReceiver<Notice>,
    inbox: VecDeque<Event>,
    children: HashMap<Generation, Child>,
    errands: HashMap<i32, Errand>,
    errands_run: u64,
    /// The generation that gets what is new, or got it last.
    front: Option<Generation>,
    /// The processes that answer for zdr when it is gone: they belong to no generation.
    keepers: HashSet<i32>,
    /// Likewise those that pass on what the instances write.
    relays: Relays,
    identity: Option<Identity>,
    notify: NotifyPlace,
    control_groups: ControlGroups,
    began: Instant,
    /// A generation has been ready, so the command is one that takes its sockets.
    served: bool,
}

/// What `next` noticed.
#[derive(Debug)]
pub enum Noticed {
    /// For the rules.
    Happened(Event),
    /// Somebody wants to know how things are.
    Asked(oneshot::Sender<Picture>),
}

impl Edges {
    /// Puts together what was opened; `now` is when zdr began.
    pub fn new(
        config: Config,
        identity: Option<Identity>,
        listeners: Listeners,
        admin: Admin,
        channel: (Owner, mpsc::UnboundedReceiver<Notice>),
        now: Instant,
    ) -> io::Result<Self> {
        let (owner, notices) = channel;
        let notify = match identity.as_ref().and_then(|identity| identity.ids.as_ref()) {
            Some(ids) => NotifyPlace::for_sender(ids.uid, ids.gid, admin.address().path())?,
            None => NotifyPlace::beside(admin.address().path()),
        };
        Ok(Self {
            relays: Relays::new(config.tail),
            config,
            listeners,
            names: Names::watch(owner.clone())?,
            admin,
            manager: ServiceManager::named(std::env::var_os("NOTIFY_SOCKET").as_deref()),
            signals: Signals::open()?,
            owner,
            notices,
            inbox: VecDeque::new(),
            children: HashMap::new(),
            errands: HashMap::new(),
            errands_run: 0,
            front: None,
            keepers: HashSet::new(),
            identity,
            notify,
            control_groups: ControlGroups::find(),
            began: now,
            served: false,
        })
    }

    /// Waits for the next thing to happen. Cancel-safe: whatever was taken out of a queue is in the inbox or returned.
    pub async fn next(&mut self, deadline: Option<Instant>) -> io::Result<Noticed> {
        loop {
            if let Some(event) = self.inbox.pop_front() {
                return Ok(Noticed::Happened(event));
            }
            tokio::select! {
                // Signals first: a process that has ended is not ready, whatever it said before.
                biased;
                asked = self.signals.next() => self.signalled(asked?),
                Some(notice) = self.notices.recv() => match notice {
                    Notice::Happened(event) => return Ok(Noticed::Happened(event)),
                    Notice::Asked(Question::Status { reply }) => return Ok(Noticed::Asked(reply)),
                    other => self.noticed(other),
                },
                () = at(deadline) => {
                    self.inbox.extend(self.what_the_late_wrote());
                    self.inbox.push_back(Event::Elapsed);
                }
            }
        }
    }

    fn signalled(&mut self, asked: Asked) {
        if asked == Asked::Reap {
            return self.reap();
        }
        let ticket = self.admin.ticket(None);
        let event = match asked {
            Asked::Restart => Event::Restart { ticket },
            Asked::Stop => Event::Stop { ticket },
            Asked::Reload | Asked::Reap => Event::Reload { ticket, command: None, until: Until::Serving },
        };
        self.inbox.push_back(event);
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Said { generation, pid, words } => self.said(generation, pid, words),
            Notice::Aim { generation, listener, reply } => {
                let _ = reply.send(self.listeners.aim(only_instance(generation), listener));
            }
            Notice::Reach { generation, reply } => {
                let trouble = self.children.get(&generation).and_then(|child| child.trouble.clone());
                let _ = reply.send(Reach { trouble, ..self.listeners.reach(generation) });
            }
            Notice::Calls { generation, done } => {
                self.answer_calls(generation);
                let _ = done.send(());
            }
            Notice::Watch { generation, reply } => {
                let _ = reply.send(self.listeners.watch(generation).unwrap_or_default());
            }
            Notice::Accepted { generation } => {
                if let Some(child) = self.children.get_mut(&generation) {
                    child.accepted = true;
                }
            }
            Notice::Unaim => self.listeners.unaim(),
            Notice::Mend => self.mend(),
            Notice::Roots { reply } => {
                let _ = reply.send(self.roots());
            }
            Notice::Front { reply } => {
                let _ = reply.send(self.listeners.front());
            }
            Notice::Errand { purpose, command, output, alive, reply } => {
                self.run_errand(purpose, &command, output.as_ref().map(AsFd::as_fd), alive, reply);
            }
            Notice::EndErrand { purpose } => self.end_errand(purpose),
            Notice::Asked(Question::Order { order, reply }) => {
                let ticket = self.admin.ticket(Some(reply));
                self.inbox.push_back(order.event(ticket));
            }
            Notice::Happened(_) | Notice::Asked(Question::Status { .. }) => {}
        }
    }

    fn mend(&mut self) {
        if let Err(error) = self.listeners.mend() {
            error!(%error, "cannot mend a listener that a server has shut down");
        }
    }

    /// Does what the rules ask for. Spawn is answered before any other event.
    pub fn perform(&mut self, action: Action, wall: SystemTime) {
        match action {
            Action::Spawn { generation, command, place } => {
                let answer = self.spawn(generation, &command, place);
                self.inbox.push_front(answer);
            }
            Action::Probe(generation) => self.probe(generation),
            Action::Steer(generation) => {
                if let Some(child) = self.children.get_mut(&generation) {
                    child.quiesce = None;
                }
                self.watch_over(generation);
                let begun = Moment::now();
                let all = Portion { generation, instances: vec![only_instance(generation).number], weight: 1 };
                failed("steer connections", self.listeners.steer(&[all]));
                self.admin.counted().cut_over(begun.elapsed());
                if !mem::replace(&mut self.served, true) {
                    // What it took to begin.
                    code::let_go();
                }
            }
            Action::Hold => {
                self.watch_over_nobody();
                failed("hold new connections", self.listeners.hold());
            }
            Action::Quiesce(generation) => {
                failed("hold what nobody else serves", self.listeners.retire(generation));
                self.watch(generation, Quiesce::run);
            }
            Action::LookBehind(generation) => self.watch(generation, Quiesce::look_behind),
            Action::Signal(generation) => {
                if let Some(child) = self.children.get(&generation).filter(|child| child.alive) {
                    failed("send the drain signal", child.pidfd.signal(self.config.drain.signal));
                }
            }
            Action::Kill(generation) => self.kill(generation),
            Action::Release(generation) => self.release(generation),
            Action::Tell(news) => {
                diary::write(&news);
                self.manager.tell(&news);
                self.admin.tell(&news, wall);
            }
            Action::Answer(ticket, verdict) => self.admin.answer(ticket, verdict),
            Action::Exit(_) => {}
        }
    }

    /// The rules' picture, with what only the edges know.
    pub fn picture(&self, status: Status, now: Instant) -> Picture {
        let holders = self.holders();
        let watched = holders.iter().filter_map(|holder| self.listeners.watch(holder.generation).ok()).flatten();
        let sockets: Vec<Watched> = watched.collect();
        Picture {
            status,
            queues: self.listeners.queues(),
            holders,
            known: self.known(),
            doors: Doors::of(sockets.iter()),
            status_texts: self.status_texts(),
            uptime_secs: (now.duration_since(self.began).as_secs_f64() * 1e3).round() / 1e3,
        }
    }

    /// Lets the last answers go out, and the last control group be left by whoever was killed in it.
    pub async fn goodbye(mut self) {
        const TURNS: u32 = 64;
        const LONGEST: Duration = Duration::from_secs(2);
        const LONGEST_LAST_WORDS: Duration = Duration::from_secs(1);
        self.end_all_errands();
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let _ = timeout(LONGEST, async {
            while !self.control_groups.sweep() {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        // As the first process of a container, zdr would end the relays with itself.
        let _ = timeout(LONGEST_LAST_WORDS, self.relays.have_passed_on_everything()).await;
    }
}

/// The one that there is of every generation so far.
fn only_instance(generation: Generation) -> Instance {
    Instance { generation, number: 1 }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn failed(what: &str, result: io::Result<()>) {
    match result {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => error!(%error, "cannot {what}"),
        _ => {}
    }
}
