//! Hundreds of reloads of one zdr with settings that change by chance, good and bad, with rollbacks, pauses, other numbers
//! of instances and killed servers among them: under load nothing is lost, and after every step the status is what a model
//! says.
//!
//! Waits for no guess: a step is over when its verdict is there and the status agrees. `ZDR_SEED=N` plays the same again.

mod model;
mod settings;
mod upkeep;
mod visitors;

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::net::{TcpListener, TcpStream};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use self::model::Model;
use self::settings::{Fault, Places, Random, Settings};
use self::upkeep::Use;
use self::visitors::Visitors;
use crate::exchange::{Exchange, Target};
use crate::harness::{DEADLINE, Setup, Zdr, get, in_seat, seats, wait_for};
use crate::load::{Load, Shape};
use crate::rows::Speaks;

/// So many, or the second number with `ZDR_LONG=1` and with the release binary.
const RELOADS: [u32; 2] = [100, 500];

/// As often the old generations are waited for, and the whole status is compared.
const REST: u32 = 10;

/// Requests a second of each client.
const RATE: f64 = 40.0;

/// What the allocator may keep more or less of from one time to another.
const MARGIN: u64 = 512;

#[test]
fn whatever_changes_nothing_is_lost_and_the_status_is_what_it_should_be() {
    let seed = std::env::var("ZDR_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000);
    let many = release().is_some() || std::env::var_os("ZDR_LONG").is_some();
    let reloads = RELOADS[usize::from(many)];
    let mut run = Run::start(seed);
    // By then nothing that zdr keeps grows any more, but for slots that are made when more generations than ever overlap.
    while run.reloads < reloads / 2 {
        run.step();
    }
    let before = run.at_rest();
    while run.reloads < reloads {
        run.step();
    }
    let after = run.at_rest();
    let few = usize::try_from(reloads / 4).unwrap();
    assert!(after.descriptors <= before.descriptors + few, "descriptors: {before:?} {after:?}");
    assert!(after.resident <= before.resident + MARGIN, "memory in KiB: {before:?} {after:?}");
    run.stop();
}

/// A zdr, its load, and what should be.
struct Run {
    seed: u64,
    random: Random,
    zdr: Zdr,
    places: Places,
    /// Holds an address that zdr cannot have.
    _taken: TcpListener,
    model: Model,
    load: Option<(Load, Exchange)>,
    visitors: Option<Visitors>,
    /// Those of listeners that come and go which were answered.
    visits: u64,
    reloads: u32,
    steps: u32,
    /// What was done last.
    story: Vec<String>,
}

fn release() -> Option<String> {
    std::env::var("ZDR_RELEASE_BINARY").ok()
}

impl Run {
    fn start(seed: u64) -> Self {
        let setup = Setup::of(&[""; 0]).listen(&[]);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let places = Places::of(setup.folder(), taken.local_addr().unwrap());
        let settings = Settings::plain(&places);
        let text = settings.text(Fault::None, &places);
        let file = setup.place("zdr.toml");
        fs::write(&file, &text).unwrap();
        let setup = setup.option("-c", &file);
        let zdr = release().iter().fold(setup, |setup, binary| setup.binary(binary)).start();
        let (random, model, story) = (Random::new(seed), Model::new(settings, text), Vec::new());
        let mut run = Self {
            seed,
            random,
            zdr,
            places,
            _taken: taken,
            model,
            load: None,
            visitors: None,
            visits: 0,
            reloads: 0,
            steps: 0,
            story,
        };
        run.load = Some(run.begin_load());
        run.visitors = Some(run.begin_visits());
        run
    }

    fn step(&mut self) {
        self.steps += 1;
        match self.random.below(21) {
            0..=12 => self.reload(),
            13..=15 => self.rollback(),
            16..=18 => self.scale(),
            19 => self.pause(),
            _ => self.kill(),
        }
        self.compare();
        let lost = self.visitors.as_ref().map(Visitors::lost).unwrap_or_default();
        assert_eq!(lost, [""; 0], "lost where listeners come and go");
        if self.steps.is_multiple_of(REST) {
            self.compare_at_rest();
        }
    }

    fn reload(&mut self) {
        let again = self.random.once_in(6).then(|| self.model.last_asked.clone());
        let (settings, fault) = again.unwrap_or_else(|| {
            let settings = Settings::random(&mut self.random, &self.places, &self.model.settings());
            (settings, Fault::random(&mut self.random))
        });
        self.reload_as(settings, fault);
    }

    fn reload_as(&mut self, settings: Settings, fault: Fault) {
        self.reloads += 1;
        // With no second instance nothing would be wrong, until somebody asks for one.
        let alone = self.model.instances_with(&settings) == 1;
        let fault = if alone && fault == Fault::SecondExits { Fault::None } else { fault };
        let text = settings.text(fault, &self.places);
        self.note(&format!("reload of {fault:?} {settings:?}"));
        if fault != Fault::None {
            // What it would have added never served, and whoever finds that is not let down by anybody who did.
            self.stop_visits();
        }
        fs::write(self.zdr.folder().join("zdr.toml"), &text).unwrap();
        let told = self.zdr.reload();
        let newest = self.newest_by_the_log();
        let code = self.model.reload(settings, text, fault, newest);
        assert_eq!(told.code, code, "{told:?}");
        if fault != Fault::None {
            let (zdr, current) = (&self.zdr, self.model.current);
            zdr.wait_until("the failed one to be gone", |status| {
                seats(status).all(|seat| seat["generation"].as_u64() <= Some(current))
            });
            self.visitors = Some(self.begin_visits());
        }
    }

    fn rollback(&mut self) {
        self.note("rollback");
        let was_kept_warm = self.model.is_kept_warm();
        let told = self.zdr.client(&["rollback"]);
        let newest = self.newest_by_the_log();
        let code = self.model.rollback(newest);
        assert_eq!(told.code, code, "{told:?}");
        if was_kept_warm {
            self.wait_for_all();
        }
    }

    fn scale(&mut self) {
        let word = ["1", "2", "3", "4", "+1", "-1", "-4", "0"][self.random.below(8)];
        self.note(&format!("scale {word}"));
        let told = self.zdr.client(&["scale", word]);
        let newest = self.newest_by_the_log();
        let code = self.model.scale(word, newest);
        assert_eq!(told.code, code, "{told:?}");
    }

    /// What is new waits while other things happen, and all of it is answered after that.
    fn pause(&mut self) {
        self.note("pause");
        let told = self.zdr.client(&["pause", "--for", "1m"]);
        assert_eq!(told.code, 0, "{told:?}");
        self.model.pause(self.newest_by_the_log());
        let waits = TcpStream::connect(self.places.web).unwrap();
        for _ in 0..self.random.below(3) {
            match self.random.below(3) {
                0 => self.rollback(),
                1 => self.scale(),
                _ => {
                    let settings = Settings::random(&mut self.random, &self.places, &self.model.settings());
                    self.reload_as(settings, Fault::None);
                }
            }
        }
        let before = self.newest_by_the_log();
        self.note("resume");
        let told = self.zdr.client(&["resume"]);
        assert_eq!(told.code, 0, "{told:?}");
        wait_for("somebody to finish what waits", || (self.newest_by_the_log() > before).then_some(()));
        drop(waits);
    }

    /// A request that a killed server had taken cannot be saved, so none is under way; those that come after it are answered.
    fn kill(&mut self) {
        self.stop_load();
        self.stop_visits();
        let pids: Vec<i32> = self.instances().into_iter().map(|(_, pid)| pid).collect();
        let all = pids.len() == 1 || self.random.once_in(2);
        let victims = if all { &pids[..] } else { &pids[..1] };
        self.note(&format!("kill {victims:?} of {pids:?}"));
        for pid in victims {
            kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
        }
        let goes_back = all && self.model.is_kept_warm();
        let load = (!goes_back).then(|| self.begin_load());
        self.visitors = (!goes_back).then(|| self.begin_visits());
        let crashes = self.model.crashes + u64::try_from(victims.len()).unwrap();
        let (zdr, number) = (&self.zdr, pids.len());
        zdr.wait_until("those that were killed to be started again", |status| {
            let serve = status["crashes"] == crashes && status["state"] == "serving";
            serve && (goes_back || status["instances"] == number)
        });
        let newest = self.newest_by_the_log();
        self.model.kill(victims.len(), all, newest);
        self.load = Some(load.unwrap_or_else(|| self.begin_load()));
        self.visitors.get_or_insert_with(|| Visitors::start(&self.places.others));
        if goes_back {
            self.wait_for_all();
        }
    }

    /// One that was kept serves at once; instances that were asked for meanwhile join it.
    #[track_caller]
    fn wait_for_all(&self) {
        let wanted = self.model.instances();
        self.zdr.wait_until("all of them to serve", |status| status["instances"] == wanted);
    }

    /// The highest number of a generation that was started to finish what waited for another: no step is the reason for it.
    fn newest_by_the_log(&self) -> u64 {
        let log = self.zdr.log();
        let finishers = log.lines().filter(|line| line.contains(" to finish what waits"));
        let number = |line: &str| line.split_once("generation ")?.1.split(' ').next()?.parse().ok();
        finishers.filter_map(number).max().unwrap_or(0)
    }

    /// All but those that drain is as it should be, and whoever answers is what should serve.
    #[track_caller]
    fn compare(&mut self) {
        let status = self.zdr.status();
        assert_eq!(self.model.of_status(&status), self.model.wanted(), "{status:#}");
        let listeners = self.model.listeners();
        for listener in &listeners {
            assert!(model::listeners(&status).contains(listener), "{listener:?}: {status:#}");
        }
        for (instance, pid) in self.instances() {
            self.check_process(instance, pid);
        }
        let (name, address) = &listeners[self.random.below(listeners.len())];
        if let Ok(address) = address.parse() {
            let wanted = format!("200 from generation {},", self.model.current);
            let (_, body) = get(address, "/");
            assert!(body.starts_with(&wanted), "{name} at {address}: {body} instead of {wanted}");
        }
    }

    /// The same once nobody drains any more, when the listeners that nobody wants are gone as well.
    #[track_caller]
    fn compare_at_rest(&mut self) {
        let (zdr, model) = (&self.zdr, &self.model);
        let status = zdr.wait_until("the old ones to be gone", |status| {
            // Those that only the warm one has are somewhere behind.
            let sorted = |mut listeners: Vec<(String, String)>| {
                let behind = model.listeners().len().min(listeners.len());
                listeners[behind..].sort();
                listeners
            };
            let (listeners, wanted) = (sorted(model::listeners(status)), sorted(model.listeners_at_rest()));
            model::draining(status) == model.draining() && listeners == wanted
        });
        assert_eq!(model.of_status(&status), model.wanted(), "{status:#}");
    }

    /// It runs what it should, with what it should have.
    #[track_caller]
    fn check_process(&self, instance: u64, pid: i32) {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let settings = self.model.settings();
        let environ = read("environ");
        let has = |entry: &str| environ.split('\0').any(|other| other == entry);
        for entry in [format!("RELEASE={}", settings.release), format!("ZDR_INSTANCE={instance}")] {
            assert!(has(&entry), "no {entry} in instance {instance}, process {pid}: {environ}");
        }
        let command = read("cmdline");
        assert!(command.contains(&format!("\0{}ms\0", settings.work)), "{command}: {settings:?}");
    }

    /// The serving instances, with their processes.
    fn instances(&self) -> Vec<(u64, i32)> {
        let status = self.zdr.status();
        let seat = seats(&status).find(|seat| seat["seat"] == "serving").unwrap();
        let number = |row: &Value| (row["instance"].as_u64().unwrap(), row["pid"].as_i64().unwrap_or(0));
        let rows = seat["instances"].as_array().unwrap().iter().map(number);
        rows.map(|(instance, pid)| (instance, i32::try_from(pid).unwrap())).collect()
    }

    fn begin_load(&self) -> (Load, Exchange) {
        let limit = DEADLINE;
        let (path, rate_per_client) = ("/".to_owned(), Some(RATE));
        let shape = Shape { new_connection_clients: 2, keep_alive_clients: 2, rate_per_client, path, limit };
        let target = Target::Unix(self.places.path.clone());
        let exchange = Exchange::start(&target, Speaks::Http, (1, 0), RATE, limit);
        (Load::start(self.places.web, &shape).unwrap(), exchange)
    }

    fn begin_visits(&self) -> Visitors {
        Visitors::start(&self.places.others)
    }

    #[track_caller]
    fn stop_visits(&mut self) {
        if let Some(visitors) = self.visitors.take() {
            let (answered, lost) = visitors.stop();
            self.visits += answered;
            assert_eq!(lost, [""; 0], "lost where listeners come and go");
        }
    }

    #[track_caller]
    fn stop_load(&mut self) {
        let (tcp, unix) = self.load.take().unwrap();
        assert!(tcp.wait_for_answers(2, DEADLINE), "no answers");
        for report in [tcp.stop(), unix.stop()] {
            assert_eq!(report.failed(), 0, "something was lost:\n{report}");
        }
    }

    /// What zdr uses with the settings that it had first, and with nobody that drains.
    fn at_rest(&mut self) -> Use {
        let settings = Settings::plain(&self.places);
        let text = settings.text(Fault::None, &self.places);
        self.note("reload of the first settings");
        fs::write(self.zdr.folder().join("zdr.toml"), &text).unwrap();
        assert_eq!(self.zdr.reload().code, 0, "{}", self.zdr.log());
        let newest = self.newest_by_the_log();
        self.model.reload(settings, text, Fault::None, newest);
        assert_eq!(self.zdr.client(&["scale", "1"]).code, 0);
        let newest = self.newest_by_the_log();
        self.model.scale("1", newest);
        self.compare_at_rest();
        self.stop_load();
        self.stop_visits();
        let used = Use::of(self.zdr.pid());
        self.load = Some(self.begin_load());
        self.visitors = Some(self.begin_visits());
        used
    }

    fn stop(mut self) {
        self.stop_load();
        self.stop_visits();
        assert_eq!(in_seat(&self.zdr.status(), "serving"), Some(self.model.current));
        assert_eq!(self.zdr.client(&["stop"]).code, 0);
        assert_eq!(self.zdr.ended().code(), Some(0));
        assert!(self.visits > 0, "nobody ever visited a listener that comes and goes");
        wait_for("the last process to be gone", || self.zdr.processes().is_empty().then_some(()));
        assert!(!self.places.path.exists(), "the path is left behind");
    }

    fn note(&mut self, what: &str) {
        let number = self.steps;
        self.story.push(format!("step {number}: {what}"));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = self.story.len().saturating_sub(8);
            eprintln!("ZDR_SEED={} plays this again:\n{}", self.seed, self.story[last..].join("\n"));
        }
    }
}
