//! Whether the serving generation is alive, by asking it again and again and by its watchdog.
//!
//! Tells when it is stuck and when it is not any more; what follows from that is decided elsewhere.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::errands::Purpose;
use super::notice::{Owner, tell};
use super::probe::Inquiry;
use super::task::Task;
use super::watchdog::Watchdog;
use super::{Edges, memory};
use crate::config::Live;
use crate::supervisor::{Event, Generation, Sign};

impl Edges {
    /// New connections go to these instances of this generation: they are watched from now on, and no other one is.
    pub(super) fn watch_over(&mut self, generation: Generation, instances: &[u32]) {
        let settings = self.settings_of(generation);
        if self.front != Some(generation) || self.live.is_none() && self.memory.is_none() {
            let live = settings.config.live.clone();
            self.live = live.map(|live| Task::start(ask_again_and_again(live, generation, self.owner.clone())));
            let limit = settings.config.max_memory;
            self.memory = limit.map(|limit| Task::start(memory::watch(generation, limit, self.owner.clone())));
        }
        if self.front != Some(generation) {
            self.admin.ask(settings.config.checks.clone());
        }
        self.front = Some(generation);
        self.readings.served = Arc::clone(&settings);
        if let Err(error) = self.watch_files() {
            warn!("{error}; changes are not noticed");
        }
        for (instance, child) in &mut self.children {
            let serves = instance.generation == generation && instances.contains(&instance.number);
            if !serves {
                child.watchdog = None;
            } else if child.watchdog.is_none() {
                let time = settings.config.watchdog.map(|time| child.watchdog_time.unwrap_or(time));
                child.watchdog = time.map(|time| Watchdog::arm(*instance, time, self.owner.clone()));
            }
        }
    }

    pub(super) fn watch_over_nobody(&mut self) {
        (self.live, self.memory) = (None, None);
        for child in self.children.values_mut() {
            child.watchdog = None;
        }
    }
}

/// It is asked as any client asks, so the answer is its own as long as new connections go to it.
async fn ask_again_and_again(live: Live, generation: Generation, owner: Owner) {
    let Live { spec, interval, timeout, failures } = live;
    let (sign, mut failed) = (Sign::Answers, 0);
    let inquiry = Inquiry { spec, limit: timeout, purpose: Purpose::Liveness(generation), owner };
    let mut begun = Instant::now();
    loop {
        // It has just shown that it is ready.
        sleep_until(begun + interval).await;
        begun = Instant::now();
        let (answer, mut remains) = inquiry.put().await;
        match answer {
            None => {}
            Some(Ok(_)) => {
                if failed >= failures {
                    tell(&inquiry.owner, Event::Recovered { generation, sign });
                }
                failed = 0;
            }
            Some(Err(why)) => {
                failed += 1;
                if failed == failures {
                    let times = if failures == 1 { String::new() } else { format!(", {failures} times in a row") };
                    let why = format!("{}: {why}{times}", inquiry.spec);
                    tell(&inquiry.owner, Event::Stuck { generation, sign, why });
                }
            }
        }
        remains.gone().await;
    }
}
