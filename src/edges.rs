//! All that zdr can sense and do, on one page: `next` notices, `perform` does.
//!
//! Decides nothing: an edge that wants an `if` about the state of a generation sends an event instead.

pub mod admin;
mod child;
mod errands;
mod http_server;
pub mod kernel;
pub mod listeners;
mod names;
pub mod notice;
mod notify;
mod probe;
mod processes;
mod quiesce;
pub mod reaper;
mod service_manager;
pub mod signals;
mod task;
mod tree;

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::time::{Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tracing::{error, info, warn};

use self::admin::Admin;
use self::child::Start;
use self::errands::Errand;
use self::kernel::allocator::give_back;
use self::kernel::pidfd::PidFd;
use self::listeners::Listeners;
use self::names::Names;
use self::notice::{Notice, Owner, Picture, Question};
use self::notify::NotifySocket;
use self::probe::Probe;
use self::quiesce::{MARKER, Quiesce, marker};
use self::service_manager::ServiceManager;
use self::signals::{Asked, Signals};
use self::task::Task;
use crate::config::{Config, Ready};
use crate::runtime_directory::beside;
use crate::supervisor::{Action, Event, Generation, News, Place, Status, Until};

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
    began: Instant,
}

/// The instance of a generation, and the tasks that are about it.
#[derive(Debug)]
struct Child {
    pid: i32,
    pidfd: PidFd,
    /// In clock ticks since boot.
    started: u64,
    /// False once it was reaped: its number may be somebody else's.
    alive: bool,
    probe: Option<Task>,
    quiesce: Option<Task>,
    notify: Option<Task>,
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
        listeners: Listeners,
        admin: Admin,
        channel: (Owner, mpsc::UnboundedReceiver<Notice>),
        now: Instant,
    ) -> io::Result<Self> {
        let (owner, notices) = channel;
        Ok(Self {
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
            began: now,
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
                () = at(deadline) => return Ok(Noticed::Happened(Event::Elapsed)),
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
            Notice::Said { generation, pid, ready } => self.said(generation, pid, ready),
            Notice::Aim { generation, listener, reply } => {
                let _ = reply.send(self.listeners.aim(generation, listener));
            }
            Notice::Reach { generation, reply } => {
                let _ = reply.send(self.listeners.reach(generation));
            }
            Notice::Unaim => self.listeners.unaim(),
            Notice::Mend => self.mend(),
            Notice::Roots { reply } => {
                let _ = reply.send(self.roots());
            }
            Notice::Errand { generation, command, reply } => self.run_errand(generation, &command, reply),
            Notice::EndErrands { generation } => self.end_errands(generation),
            Notice::Asked(Question::Order { order, reply }) => {
                let ticket = self.admin.ticket(Some(reply));
                self.inbox.push_back(order.event(ticket));
            }
            Notice::Happened(_) | Notice::Asked(Question::Status { .. }) => {}
        }
    }

    fn reap(&mut self) {
        self.mend();
        for (pid, exit) in reaper::reap() {
            if let Some(errand) = self.errands.remove(&pid) {
                let _ = errand.reply.send(Ok(exit));
            } else if let Some((generation, child)) = self.children.iter_mut().find(|(_, child)| child.pid == pid) {
                child.alive = false;
                (child.probe, child.quiesce, child.notify) = (None, None, None);
                self.inbox.push_back(Event::Exited { generation: *generation, exit });
            }
        }
    }

    fn mend(&mut self) {
        if let Err(error) = self.listeners.mend() {
            error!(%error, "cannot mend a listener that a server has shut down");
        }
    }

    /// READY=1 counts from the generation's own processes. One that has ended since cannot be looked up any more; it knew
    /// the path of a socket that only this generation was told.
    fn said(&mut self, generation: Generation, pid: i32, ready: bool) {
        let Some(child) = self.children.get(&generation).filter(|child| child.alive && ready) else {
            return;
        };
        if !matches!(self.config.readiness.ready, Ready::Notify | Ready::Default) {
            return;
        }
        if processes::program(pid).is_none() || self.tree(generation, child).contains(&pid) {
            self.inbox.push_back(Event::Ready { generation });
            self.end_errands(generation);
            if let Some(child) = self.children.get_mut(&generation) {
                child.probe = None;
            }
        } else {
            warn!(%generation, pid, "READY=1 from a process that does not belong to the generation was ignored");
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
                failed("steer connections", self.listeners.steer(generation));
            }
            Action::Hold => failed("hold new connections", self.listeners.hold()),
            Action::Quiesce(generation) => self.watch(generation, Quiesce::run),
            Action::LookBehind(generation) => self.watch(generation, Quiesce::look_behind),
            Action::Signal(generation) => {
                if let Some(child) = self.children.get(&generation).filter(|child| child.alive) {
                    failed("send the drain signal", child.pidfd.signal(self.config.drain.signal));
                }
            }
            Action::Kill(generation) => self.kill(generation),
            Action::Release(generation) => self.release(generation),
            Action::Tell(news) => {
                log(&news);
                self.manager.tell(&news);
                self.admin.tell(&news, wall);
            }
            Action::Answer(ticket, verdict) => self.admin.answer(ticket, verdict),
            Action::Exit(_) => {}
        }
    }

    fn spawn(&mut self, generation: Generation, command: &[OsString], place: Place) -> Event {
        let fail = |why: String, code| Event::SpawnFailed { generation, why, code };
        let admin = self.admin.address().path().to_owned();
        let notify_path = beside(&admin, &generation.to_string());
        let notify = match NotifySocket::bind(&notify_path) {
            Ok(socket) => socket,
            Err(error) => {
                return fail(format!("cannot make {}: {error}", notify_path.display()), None);
            }
        };
        let lent = match self.listeners.lend(generation, place) {
            Ok(lent) => lent,
            Err(error) => return fail(error.to_string(), None),
        };
        let process = &self.config.process;
        let start = Start { generation, command, process, notify_socket: Some(&notify_path), admin: &admin, lent };
        let started = start.spawn();
        failed("watch the names of Unix sockets", self.names.add(self.listeners.files()));
        match started {
            Ok(spawned) => {
                let listen = Task::start(listen(notify, generation, self.owner.clone()));
                let child = Child {
                    pid: spawned.pid,
                    pidfd: spawned.pidfd,
                    started: processes::started(spawned.pid).unwrap_or(u64::MAX),
                    alive: true,
                    probe: None,
                    quiesce: None,
                    notify: Some(listen),
                };
                self.children.insert(generation, child);
                Event::Spawned { generation, pid: spawned.pid }
            }
            Err(error) => fail(error.to_string(), error.code()),
        }
    }

    fn probe(&mut self, generation: Generation) {
        let Some(child) = self.children.get_mut(&generation) else { return };
        let probe = Probe { generation, readiness: self.config.readiness.clone(), owner: self.owner.clone() };
        child.probe = Some(Task::start(probe.run()));
    }

    /// Starts a task that looks at the slot of a generation.
    fn watch<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        generation: Generation,
        task: impl FnOnce(Quiesce) -> F,
    ) {
        let roots = self.roots().into_iter().map(|(_, root)| root).collect();
        let sockets = match self.listeners.watch(generation) {
            Ok(sockets) => sockets,
            Err(error) => {
                error!(%generation, %error, "cannot watch its queue");
                Vec::new()
            }
        };
        let Some(child) = self.children.get_mut(&generation) else { return };
        let idle = self.config.drain.idle;
        let quiesce = Quiesce { generation, root: child.pid, roots, sockets, idle, owner: self.owner.clone() };
        child.quiesce = Some(Task::start(task(quiesce)));
    }

    fn kill(&mut self, generation: Generation) {
        self.end_errands(generation);
        if let Some(child) = self.children.get_mut(&generation) {
            (child.probe, child.quiesce) = (None, None);
        }
        if let Some(child) = self.children.get(&generation) {
            tree::kill(|| self.tree(generation, child));
        }
    }

    fn tree(&self, generation: Generation, child: &Child) -> Vec<i32> {
        let mut known: Vec<i32> = self.roots().into_iter().map(|(_, root)| root).collect();
        known.extend(self.errands.keys());
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
        tree
    }

    fn release(&mut self, generation: Generation) {
        self.children.remove(&generation);
        let dropped = self.listeners.release(generation);
        if dropped > 0 {
            warn!(%generation, dropped, "connections that nobody was left to answer were closed");
        }
        give_back();
    }

    fn roots(&self) -> Vec<(Generation, i32)> {
        self.children
            .iter()
            .filter(|(_, child)| child.alive)
            .map(|(generation, child)| (*generation, child.pid))
            .collect()
    }

    /// The rules' picture, with what only the edges know.
    pub fn picture(&self, status: Status, now: Instant) -> Picture {
        let slots = self.listeners.slots();
        Picture {
            status,
            listeners: self.listeners.all().map(|listener| (listener.clone(), slots)).collect(),
            roots: self.roots(),
            uptime_secs: (now.duration_since(self.began).as_secs_f64() * 1e3).round() / 1e3,
        }
    }

    /// Lets the last answers go out.
    pub async fn goodbye(self) {
        const TURNS: u32 = 64;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

async fn listen(socket: NotifySocket, generation: Generation, owner: Owner) {
    while let Ok(notify::Said { pid, ready }) = socket.next().await {
        let _ = owner.send(Notice::Said { generation, pid, ready });
    }
}

fn failed(what: &str, result: io::Result<()>) {
    match result {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => error!(%error, "cannot {what}"),
        _ => {}
    }
}

fn log(news: &News) {
    match news {
        News::Failed { .. } | News::Crashed { .. } | News::Killed { .. } | News::Retrying { .. } => warn!("{news}"),
        News::Verdict(_) => {}
        _ => info!("{news}"),
    }
}
