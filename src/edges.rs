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
mod file_watch;
mod generations;
mod heard;
mod hooks;
mod http_server;
pub mod identity;
mod instances;
mod interest;
pub mod kernel;
mod last_words;
pub mod limits;
pub mod listeners;
mod liveness;
mod memory;
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

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use std::{io, mem};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant as Moment, sleep, sleep_until, timeout};
use tracing::{error, warn};

use self::admin::Admin;
use self::cgroup::ControlGroups;
use self::connections::Doors;
use self::errands::Errand;
use self::file_watch::FileWatch;
pub use self::generations::Settings;
use self::generations::{Generations, Readings};
use self::instances::Child;
use self::kernel::code;
use self::last_words::Relays;
use self::listeners::{Listeners, Reach, Watched};
use self::names::Names;
use self::notice::{Notice, Owner, Picture, Question};
use self::quiesce::Quiesce;
use self::service_manager::ServiceManager;
use self::signals::{Asked, Signals};
use self::task::Task;
use crate::config::{Limit, Reread};
use crate::supervisor::{Action, Event, Generation, Instance, Portion, QueueMode, Scale, Status, Until};

/// The exit code of wrong use, for what was right when zdr began and is not any more.
const WRONG_USE: i32 = 2;

/// Everything zdr can sense and do.
pub struct Edges {
    reread: Reread,
    readings: Readings,
    /// What is known of each generation.
    known: Generations,
    listeners: Listeners,
    names: Names,
    admin: Admin,
    manager: ServiceManager,
    signals: Signals,
    owner: Owner,
    notices: mpsc::UnboundedReceiver<Notice>,
    inbox: VecDeque<Event>,
    children: HashMap<Instance, Child>,
    /// Killed with nobody to tell; they are to be reaped.
    buried: HashSet<i32>,
    /// The looks at the slots of generations that get nothing new.
    looks: HashMap<Generation, Task>,
    /// Whether the front is alive, and how large.
    live: Option<Task>,
    memory: Option<Task>,
    /// The waits for commands of the user's.
    hooks: Vec<Task>,
    /// Files whose change is a reload.
    watched: Option<((Vec<PathBuf>, Duration), FileWatch)>,
    errands: HashMap<i32, Errand>,
    errands_run: u64,
    /// The generation that gets what is new, or got it last.
    front: Option<Generation>,
    /// The processes that answer for zdr when it is gone: they belong to no generation.
    keepers: HashSet<i32>,
    /// Likewise those that pass on what the instances write.
    relays: Relays,
    control_groups: ControlGroups,
    began: Instant,
    /// A generation has been ready, so the command is one that takes its sockets.
    served: bool,
}

/// What zdr begins with.
pub struct Opened {
    /// The first settings.
    pub settings: Settings,
    /// What was in the file that they came from, if there was one.
    pub text: Option<String>,
    /// The limit that zdr had before it gave itself a higher one.
    pub limits: Option<Limit>,
    /// How settings are read again.
    pub reread: Reread,
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
        opened: Opened,
        listeners: Listeners,
        admin: Admin,
        channel: (Owner, mpsc::UnboundedReceiver<Notice>),
        now: Instant,
    ) -> io::Result<Self> {
        let (owner, notices) = channel;
        let Opened { settings, text, limits, reread } = opened;
        Ok(Self {
            reread,
            readings: Readings::begin(settings, text, limits),
            known: HashMap::new(),
            relays: Relays::default(),
            listeners,
            names: Names::watch(owner.clone())?,
            admin,
            manager: ServiceManager::named(std::env::var_os("NOTIFY_SOCKET").as_deref()),
            signals: Signals::open()?,
            owner,
            notices,
            inbox: VecDeque::new(),
            children: HashMap::new(),
            buried: HashSet::new(),
            looks: HashMap::new(),
            live: None,
            memory: None,
            hooks: Vec::new(),
            watched: None,
            errands: HashMap::new(),
            errands_run: 0,
            front: None,
            keepers: HashSet::new(),
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
            Asked::More => Event::Scale { ticket, scale: Scale::By(1) },
            Asked::Fewer => Event::Scale { ticket, scale: Scale::By(-1) },
            Asked::Reload | Asked::Reap => Event::Reload { ticket, command: None, until: Until::Serving },
        };
        self.inbox.push_back(event);
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Said { instance, pid, words } => self.said(instance, pid, words),
            Notice::Aim { instance, listener, reply } => {
                let _ = reply.send(self.listeners.aim(instance, listener));
            }
            Notice::Reach { instance, reply } => {
                let trouble = self.children.get(&instance).and_then(|child| child.trouble.clone());
                let shares = self.settings_of(instance.generation).config.policy.queue == QueueMode::Shared;
                let others = shares && self.of(instance.generation).any(|(other, _)| other != instance);
                let _ = reply.send(Reach { others, trouble, ..self.listeners.reach(instance.generation) });
            }
            Notice::Calls { instance, done } => {
                self.answer_calls(instance);
                let _ = done.send(());
            }
            Notice::Watch { instance, reply } => {
                let _ = reply.send(self.listeners.watch(instance.generation).unwrap_or_default());
            }
            Notice::Holders { generation, reply } => {
                let holders = self.holders().into_iter().filter(|holder| holder.instance.generation == generation);
                let _ = reply.send((holders.collect(), self.known_processes()));
            }
            Notice::Taken { instance, listener, connection } => {
                let probe = self.children.get(&instance).and_then(|child| child.taken.as_ref());
                // One that is probed no more has no use for it.
                let _ = probe.map(|probe| probe.send((listener, connection)));
            }
            Notice::Accepted { instance } => {
                if let Some(child) = self.children.get_mut(&instance) {
                    child.accepted = true;
                }
            }
            Notice::Unaim { instance } => self.listeners.unaim(instance),
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
            Action::Prepare { generation, origin } => {
                let answer = self.prepare(generation, &origin);
                self.inbox.push_front(answer);
            }
            Action::RunHook { hook, generation, other, why } => self.run_hook(hook, generation, other, why),
            Action::Spawn { instance, command, place, like } => {
                if let Some(like) = like {
                    self.make_alike(instance.generation, like);
                }
                let answer = self.spawn(instance, &command, place);
                self.inbox.push_front(answer);
            }
            Action::Probe(instance) => self.probe(instance),
            Action::Steer(portions) => self.steer(&portions),
            Action::Hold => {
                self.watch_over_nobody();
                failed("hold new connections", self.listeners.hold());
            }
            Action::Pause(generation) => {
                let told = self.listeners.pause(generation).map_err(|error| error.to_string());
                told.iter().flatten().for_each(|why| warn!("{why}"));
                self.inbox.push_front(Event::Held { told });
            }
            Action::Resume => failed("let new connections go", self.listeners.resume()),
            Action::AskChecks(wanted) => self.admin.ask_on(wanted),
            Action::Quiesce(generation) => self.retire(generation, Quiesce::run),
            Action::LookBehind(generation) => self.retire(generation, Quiesce::look_behind),
            Action::Signal(generation) => self.signal(generation),
            Action::Bury(instance) => self.bury(instance),
            Action::Remember(wanted) => self.remember(&wanted),
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

    /// Gives what is new to the instances that are named.
    fn steer(&mut self, portions: &[Portion]) {
        let Some(front) = portions.first() else { return };
        for portion in portions {
            self.looks.remove(&portion.generation);
        }
        self.watch_over(front.generation, &front.instances);
        let begun = Moment::now();
        failed("steer connections", self.listeners.steer(portions));
        self.admin.counted().cut_over(begun.elapsed());
        if !mem::replace(&mut self.served, true) {
            // What it took to begin.
            code::let_go();
        }
    }

    /// The rules' picture, with what only the edges know.
    pub fn picture(&self, status: Status, now: Instant) -> Picture {
        let holders = self.holders();
        let generations: BTreeSet<Generation> = holders.iter().map(|holder| holder.instance.generation).collect();
        let watched = generations.iter().filter_map(|generation| self.listeners.watch(*generation).ok()).flatten();
        let sockets: Vec<Watched> = watched.collect();
        Picture {
            status,
            queues: self.listeners.queues(),
            holders,
            known: self.known_processes(),
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
