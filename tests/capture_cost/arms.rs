//! Servers to be compared: the same one by itself and under zdr, and what a request costs each of them.
//!
//! Costs are CPU time of whole processes, which a busy machine disturbs far less than it disturbs throughput.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

use crate::harness::{DEADLINE, Setup, Zdr, free_port, get, wait_for};
use crate::load::{Load, Shape};

/// One measurement takes so long. Short, so that two that are compared see the same machine.
const WINDOW: Duration = Duration::from_millis(40);

/// A server as one side of a comparison.
pub(super) struct Arm {
    pub(super) address: SocketAddr,
    clock: ClockId,
    running: Running,
}

enum Running {
    Alone(Child),
    Supervised(Zdr),
}

/// How clients ask.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    OverNewConnections,
    OverKeptOnes,
}

/// Requests a second, and microseconds of CPU time for one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) rate: f64,
    pub(super) server: f64,
    /// Of the client and the server: what the kernel does for a connection on the loopback, the choice among the sockets of
    /// a group included, it does at the client's expense.
    pub(super) both: f64,
}

impl Arm {
    /// Without zdr, on the socket that it binds by itself.
    pub(super) fn alone(command: impl Fn(u16) -> Vec<String>) -> Self {
        let port = free_port();
        let words = command(port);
        let mut started = Command::new(&words[0]);
        // What it answers, it answers under zdr too.
        started.args(&words[1..]).env("ZDR_GENERATION", "1").stdin(Stdio::null()).stdout(Stdio::null());
        let child = started.spawn().unwrap();
        let pid = child.id().cast_signed();
        Self::of(pid, SocketAddr::from(([127, 0, 0, 1], port)), Running::Alone(child))
    }

    /// Under zdr: captured, or as the options say.
    pub(super) fn supervised(command: impl Fn(u16) -> Vec<String>, options: impl Fn(Setup, u16) -> Setup) -> Self {
        let port = free_port();
        // A stop that does not wait for connections to fall idle.
        let setup = Setup::of(&command(port)).listen(&[]).option("--bake", "0s").option("--drain-idle", "0s");
        let zdr = options(setup, port).start();
        Self::of(zdr.server_pid(), zdr.address(), Running::Supervised(zdr))
    }

    fn of(pid: i32, address: SocketAddr, running: Running) -> Self {
        wait_for("the server to answer", || (get(address, "/health").0 == 200).then_some(()));
        Self { address, clock: clock_getcpuclockid(Pid::from_raw(pid)).unwrap(), running }
    }

    /// While clients ask as fast as they can.
    pub(super) fn cost(&self, asked: Asked) -> Cost {
        let (new_connection_clients, keep_alive_clients) = match asked {
            Asked::OverNewConnections => (8, 0),
            Asked::OverKeptOnes => (0, 8),
        };
        let path = "/health".to_owned();
        let shape = Shape { new_connection_clients, keep_alive_clients, rate_per_client: None, path, limit: DEADLINE };
        let load = Load::start(self.address, &shape).unwrap();
        assert!(load.wait_for_answers(50, DEADLINE));
        let client = ClockId::CLOCK_PROCESS_CPUTIME_ID;
        let now = || (Instant::now(), load.answered(), used(self.clock), used(client));
        let before = now();
        park_timeout(WINDOW);
        let after = now();
        let report = load.stop();
        assert_eq!(report.failed(), 0, "{report}");
        #[expect(clippy::cast_precision_loss, reason = "a few thousand requests")]
        let answered = (after.1 - before.1) as f64;
        let for_one = |time: Duration| time.as_secs_f64() * 1e6 / answered;
        let (server, client) = (for_one(after.2.saturating_sub(before.2)), for_one(after.3.saturating_sub(before.3)));
        Cost { rate: answered / (after.0 - before.0).as_secs_f64(), server, both: server + client }
    }

    /// The next generation, where there is a zdr.
    pub(super) fn reload(&self) {
        if let Running::Supervised(zdr) = &self.running {
            assert_eq!(zdr.reload().code, 0, "{}", zdr.log());
        }
    }
}

impl Cost {
    pub(super) fn all(self) -> [f64; 3] {
        [self.rate, self.server, self.both]
    }

    /// The better quarter's worst of each number: what disturbs, on a busy machine most of the time, makes it worse.
    pub(super) fn undisturbed(costs: &[Self]) -> Self {
        let quarter = |number: fn(&Self) -> f64| {
            let mut numbers: Vec<f64> = costs.iter().map(number).collect();
            numbers.sort_by(f64::total_cmp);
            numbers[numbers.len() / 4]
        };
        Self { rate: -quarter(|cost| -cost.rate), server: quarter(|cost| cost.server), both: quarter(|cost| cost.both) }
    }
}

impl Drop for Arm {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Alone(child) => {
                let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
                let _ = child.wait();
            }
            // In order, because a server that writes over its environment could not be found afterwards.
            Running::Supervised(zdr) => {
                zdr.client(&["stop"]);
            }
        }
    }
}

/// CPU time used up to now, by all threads.
fn used(clock: ClockId) -> Duration {
    clock.now().unwrap().into()
}
