//! What should be: who serves, with which settings, what a rollback would go to, and what was answered last.
//!
//! Knows the promises only, nothing of how they are kept.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::settings::{Fault, Settings};
use crate::harness::seats;

/// How many releases one can go back.
const WAY_BACK: usize = 4;

/// What a generation was started with.
#[derive(Clone, Debug)]
struct Plan {
    settings: Settings,
    version: u64,
}

pub struct Model {
    plans: BTreeMap<u64, Plan>,
    newest: u64,
    pub current: u64,
    /// Those that a rollback can go to, the next of them last.
    history: Vec<u64>,
    /// The last of them still runs, with so many instances.
    warm: Option<u64>,
    /// How many instances somebody asked for, and how many the settings had then.
    scaled: Option<(u64, u64)>,
    /// What was read last, and the number of that.
    text: String,
    version: u64,
    pub crashes: u64,
    verdict: Value,
    /// What the file says.
    pub last_asked: (Settings, Fault),
}

impl Model {
    pub fn new(settings: Settings, text: String) -> Self {
        let plan = Plan { settings: settings.clone(), version: 1 };
        let verdict = json!(["done", "ready", 1]);
        Self {
            plans: BTreeMap::from([(1, plan)]),
            newest: 1,
            current: 1,
            history: Vec::new(),
            warm: None,
            scaled: None,
            text,
            version: 1,
            crashes: 0,
            verdict,
            last_asked: (settings, Fault::None),
        }
    }

    /// Of what serves.
    pub fn settings(&self) -> Settings {
        self.plans[&self.current].settings.clone()
    }

    pub fn instances(&self) -> u64 {
        self.instances_with(&self.plans[&self.current].settings)
    }

    /// What somebody asked for holds until the settings say another number than they did then.
    pub fn instances_with(&self, settings: &Settings) -> u64 {
        let asked = self.scaled.filter(|(_, then)| *then == settings.instances);
        asked.map_or(settings.instances, |(asked, _)| asked)
    }

    pub fn is_kept_warm(&self) -> bool {
        self.warm.is_some()
    }

    /// The exit code of a reload.
    pub fn reload(&mut self, settings: Settings, text: String, fault: Fault, newest: u64) -> i32 {
        self.last_asked = (settings.clone(), fault);
        if matches!(fault, Fault::UnknownKey | Fault::HalfWritten | Fault::AddressInUse) {
            return self.keeps("refused", None);
        }
        if text != self.text {
            (self.version, self.text) = (self.version + 1, text);
        }
        let generation = self.next(newest);
        match fault {
            Fault::Exits | Fault::SecondExits => return self.keeps("exited", Some(generation)),
            Fault::NeverReady => return self.keeps("timed_out", Some(generation)),
            Fault::NotExecutable => return self.keeps("not_started", Some(generation)),
            _ => {}
        }
        self.history.push(self.current);
        let too_many = self.history.len().saturating_sub(WAY_BACK);
        self.history.drain(..too_many);
        self.warm = settings.keeps.then(|| self.instances());
        self.serves(generation, Plan { settings, version: self.version });
        self.done("ready", generation)
    }

    /// The exit code of a rollback.
    pub fn rollback(&mut self, newest: u64) -> i32 {
        let Some(target) = self.history.pop() else { return 1 };
        let generation = if self.warm.is_some() { target } else { self.next(newest) };
        self.returns(generation, target);
        self.done("rolled_back", generation)
    }

    /// The exit code of a change of the number of instances.
    pub fn scale(&mut self, word: &str, newest: u64) -> i32 {
        let have = self.instances();
        let wanted = match word.parse::<i64>() {
            Ok(by) if word.starts_with(['+', '-']) => have.checked_add_signed(by),
            other => other.ok().and_then(|number| u64::try_from(number).ok()),
        };
        let Some(wanted) = wanted.filter(|number| *number > 0) else { return 1 };
        self.scaled = Some((wanted, self.plans[&self.current].settings.instances));
        if wanted >= have {
            return self.done("scaled", self.current);
        }
        self.follows_itself(newest);
        self.done("ready", self.current)
    }

    /// It has a number, and no process.
    pub fn pause(&mut self, newest: u64) {
        self.next(newest);
    }

    /// So many of those that serve have died, or all of them.
    pub fn kill(&mut self, number: usize, all: bool, newest: u64) {
        self.crashes += u64::try_from(number).unwrap();
        if !all {
            return;
        }
        if let Some(target) = self.history.pop_if(|_| self.warm.is_some()) {
            self.verdict = json!(["kept", "crashed", self.current]);
            return self.returns(target, target);
        }
        // Those that were started again first are of the same generation, and it goes on with them.
        if number == 1 {
            self.follows_itself(newest);
        }
        self.done("ready", self.current);
    }

    /// Another generation of the same release.
    fn follows_itself(&mut self, newest: u64) {
        let (generation, plan) = (self.next(newest), self.plans[&self.current].clone());
        self.warm = None;
        self.serves(generation, plan);
    }

    /// As the target was, and where that was kept, with no fewer instances than it has.
    fn returns(&mut self, generation: u64, target: u64) {
        let (has, plan) = (self.warm.take(), self.plans[&target].clone());
        let configured = plan.settings.instances;
        self.serves(generation, plan);
        if let Some(has) = has {
            self.scaled = Some((has.max(self.instances()), configured));
        }
    }

    /// The next number: those of generations that finished what waited for others are not used again.
    fn next(&mut self, finisher: u64) -> u64 {
        self.newest = self.newest.max(finisher) + 1;
        self.newest
    }

    fn serves(&mut self, generation: u64, plan: Plan) {
        self.scaled.take_if(|(_, then)| *then != plan.settings.instances);
        self.plans.insert(generation, plan);
        self.current = generation;
    }

    fn done(&mut self, cause: &str, generation: u64) -> i32 {
        self.verdict = json!(["done", cause, generation]);
        0
    }

    fn keeps(&mut self, cause: &str, generation: Option<u64>) -> i32 {
        self.verdict = json!(["kept", cause, generation]);
        3
    }

    /// Name and address of each listener, in their order.
    pub fn listeners(&self) -> Vec<(String, String)> {
        self.listeners_of(self.current)
    }

    /// The same once all that can be closed is closed: one that is kept warm has its own.
    pub fn listeners_at_rest(&self) -> Vec<(String, String)> {
        let mut listeners = self.listeners();
        let of_the_warm = self.draining().into_iter().flat_map(|warm| self.listeners_of(warm));
        let addresses: Vec<String> = listeners.iter().map(|(_, address)| address.clone()).collect();
        listeners.extend(of_the_warm.filter(|(_, address)| !addresses.contains(address)));
        listeners
    }

    fn listeners_of(&self, generation: u64) -> Vec<(String, String)> {
        let pair = |it: &super::settings::Listener| (it.name.clone(), it.address.clone());
        self.plans[&generation].settings.listeners.iter().map(pair).collect()
    }

    /// Who drains once all that can have ended has.
    pub fn draining(&self) -> Vec<u64> {
        self.history.last().copied().filter(|_| self.warm.is_some()).into_iter().collect()
    }

    /// The status as it should be.
    pub fn wanted(&self) -> Value {
        let plan = &self.plans[&self.current];
        let rows: Vec<_> = (1..=self.instances()).map(|number| json!([number, "serving"])).collect();
        let warm = self.draining();
        json!({
            "state": "serving",
            "ready": true,
            "status": if self.verdict[0] == "done" { "healthy" } else { "degraded" },
            "generation": self.current,
            "config_version": plan.version,
            "instances": self.instances(),
            "rollback": self.history.last().map(|goal| json!({"generation": goal, "warm": self.warm.is_some()})),
            "crashes": self.crashes,
            "last_verdict": self.verdict,
            "serving": [[self.current, plan.version, rows]],
            "starting": 0,
            "warm": warm.iter().map(|old| json!([old, self.plans[old].version])).collect::<Vec<_>>(),
        })
    }

    /// The same of a status that was asked for.
    pub fn of_status(&self, status: &Value) -> Value {
        let verdict = &status["last_verdict"];
        let rows = |seat: &Value| -> Vec<Value> {
            let rows = seat["instances"].as_array().into_iter().flatten();
            rows.map(|row| json!([row["instance"], row["state"]])).collect()
        };
        let serving = seats(status).filter(|seat| seat["seat"] == "serving");
        let serving = serving.map(|seat| json!([seat["generation"], seat["config_version"], rows(seat)]));
        let warm = seats(status).filter(|seat| self.draining().iter().any(|old| seat["generation"] == *old));
        json!({
            "state": status["state"],
            "ready": status["ready"],
            "status": status["status"],
            "generation": status["generation"],
            "config_version": status["config_version"],
            "instances": status["instances"],
            "rollback": status["rollback"],
            "crashes": status["crashes"],
            "last_verdict": [verdict["outcome"], verdict["cause"], verdict["generation"]],
            "serving": serving.collect::<Vec<_>>(),
            "starting": seats(status).filter(|seat| seat["seat"] == "starting").count(),
            "warm": warm.map(|seat| json!([seat["generation"], seat["config_version"]])).collect::<Vec<_>>(),
        })
    }
}

/// Name and address of each listener of a status.
pub fn listeners(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = status["listeners"].as_array().into_iter().flatten();
    rows.map(|row| (text(&row["name"]), text(&row["address"]))).collect()
}

/// Who drains by a status.
pub fn draining(status: &Value) -> Vec<u64> {
    let draining = seats(status).filter(|seat| seat["seat"] == "draining");
    draining.filter_map(|seat| seat["generation"].as_u64()).collect()
}
