//! What it costs a server that binds by itself to be captured: for each request, for each system call, at a reload, in memory.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use arms::{Arm, Asked, Cost};
use ratios::{Ratios, median};

use crate::harness::{DEADLINE, Setup, Zdr, free_port, get, in_seat, wait_for};

use crate::servers::in_servers;
use crate::{ROUNDS, count_in, first_answer_after_reload, range, resident_kib, sum_of, watchers};

mod arms;
mod ratios;
mod told;

/// Fresh processes so many times,
const RUNS: usize = 20;
/// and in each run every side so many times there and back.
const TIMES: usize = 8;

/// Net/http as its users write it, built once.
fn go(port: u16) -> Vec<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let binary = folder.join("go-server");
    if !binary.exists() {
        // Beside its place and then moved there, because it may be built by two at once.
        let made = tempfile::tempdir_in(folder).unwrap();
        let new = made.path().join("server");
        let built = Command::new("go").args(["build", "-o"]).arg(&new).arg(".").current_dir(in_servers("go")).status();
        assert!(built.expect("Go is there").success());
        fs::rename(new, &binary).unwrap();
    }
    vec![binary.display().to_string(), port.to_string()]
}

/// On one core, because the other is the client's; else it spends its time on looking for work, which differs widely.
fn go_on_one_core(port: u16) -> Vec<String> {
    [vec!["env".to_owned(), "GOMAXPROCS=1".to_owned()], go(port)].concat()
}

/// One process, without access log: about the least that a request can cost.
fn nginx(port: u16) -> Vec<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nginx");
    fs::create_dir_all(&folder).unwrap();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths: String = paths.map(|name| format!("{name}_temp_path {}/{name}; ", folder.display())).concat();
    let text = format!(
        "daemon off; master_process off; pid {port}.pid; error_log stderr; events {{}}\n\
         http {{ access_log off; {paths} keepalive_requests 1000000000;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"nginx\\n\"; }} }} }}\n"
    );
    let file = folder.join(format!("{port}.conf"));
    fs::write(&file, text).unwrap();
    let words = ["nginx", "-e", "stderr", "-p", &folder.display().to_string(), "-c", &file.display().to_string()];
    words.map(str::to_owned).to_vec()
}

fn captured(setup: Setup, _: u16) -> Setup {
    setup
}

/// A listener of zdr's, taken from LISTEN_FDS: the sockets of a group, and no filter.
fn listening(setup: Setup, port: u16) -> Setup {
    setup.option("--listen", &format!("127.0.0.1:{port}")).option("--capture", "never")
}

/// The same with the filter.
fn listening_and_filtered(setup: Setup, port: u16) -> Setup {
    setup.option("--listen", &format!("127.0.0.1:{port}")).option("--capture", "always")
}

type Way = fn(Setup, u16) -> Setup;
type Sides = Vec<(&'static str, Option<Way>)>;

#[test]
fn a_request_costs_a_captured_server_what_it_costs_it_alone() {
    let alone: (_, Option<Way>) = ("alone once more", None);
    let captured: (_, Option<Way>) = ("captured", Some(captured));
    let listening: Sides = vec![("--listen", Some(listening)), ("--listen, filter", Some(listening_and_filtered))];
    // What is found between two that are alike is noise.
    compare("nginx", nginx, &vec![alone, captured]);
    compare("Go", go_on_one_core, &[vec![alone, captured], listening].concat());
}

/// Each side beside the server alone.
fn compare(name: &str, command: fn(u16) -> Vec<String>, sides: &Sides) {
    let kinds = [Asked::OverKeptOnes, Asked::OverNewConnections];
    let mut found: Vec<_> = kinds.map(|_| vec![[const { Ratios::new() }; 3]; sides.len()]).into();
    let mut alone: [Vec<Cost>; 2] = Default::default();
    for run in 0..RUNS {
        let mut arms: Vec<_> = sides.iter().map(|(_, way)| (*way, None)).collect();
        arms.insert(0, (None, None));
        // The order in which they are started differs from run to run.
        let count = arms.len();
        for place in 0..count {
            let (way, arm) = &mut arms[(run + place) % count];
            *arm = Some(way.map_or_else(|| Arm::alone(command), |way| Arm::supervised(command, way)));
        }
        let arms: Vec<Arm> = arms.into_iter().filter_map(|(_, arm)| arm).collect();
        for (kind, asked) in kinds.into_iter().enumerate() {
            let mut costs = vec![Vec::new(); count];
            for _ in 0..TIMES {
                // There and back, so that a machine that becomes faster or slower meanwhile favours nobody.
                for place in (0..count).chain((0..count).rev()) {
                    costs[place].push(arms[place].cost(asked));
                }
            }
            let costs: Vec<Cost> = costs.iter().map(|costs| Cost::undisturbed(costs)).collect();
            for (found, cost) in found[kind].iter_mut().zip(&costs[1..]) {
                for (found, (cost, alone)) in found.iter_mut().zip(cost.all().into_iter().zip(costs[0].all())) {
                    found.add(cost / alone);
                }
            }
            alone[kind].push(costs[0]);
        }
    }
    for (kind, asked) in kinds.into_iter().enumerate() {
        let [rate, server, both] =
            [0, 1, 2].map(|number| median(alone[kind].iter().map(|cost| cost.all()[number]).collect()));
        eprintln!("{name}, {asked:?}, alone: {rate:.0}/s, server {server:.1} µs a request, with client {both:.1} µs");
        for ((side, _), [rate, server, both]) in sides.iter().zip(&found[kind]) {
            eprintln!("    {side}: requests a second {rate}; CPU of the server {server}; with client {both}");
        }
    }
    load_of_the_machine();
}

fn load_of_the_machine() {
    eprintln!("load of the machine: {}", fs::read_to_string("/proc/loadavg").unwrap().trim());
}

#[test]
fn a_system_call_beside_the_same_without_capture() {
    let mut found = [const { Vec::new() }; 3];
    let mut calls = Ratios::new();
    for _ in 0..ROUNDS {
        let alone = Arm::alone(told::command);
        let captured = Arm::supervised(told::command, captured);
        let both = [told::ask(&alone), told::ask(&captured), told::ask(&captured), told::ask(&alone)];
        let pair = |a: usize, b: usize| both[a][told::ANY_CALL] / both[b][told::ANY_CALL];
        calls.add(f64::midpoint(pair(1, 0), pair(2, 3)));
        found[0].push(both[0].clone());
        found[1].push(both[1].clone());
        captured.reload();
        found[2].push(told::ask(&captured));
    }
    for what in found[0][0].keys() {
        let [alone, captured, later] = found.each_ref().map(|told| {
            let numbers: Vec<f64> = told.iter().map(|told| told[what] / 1e3).collect();
            let (least, most) =
                (numbers.iter().copied().fold(f64::MAX, f64::min), numbers.iter().copied().fold(0.0, f64::max));
            format!("{:.3} ({least:.3} to {most:.3})", median(numbers))
        });
        eprintln!("{what}, µs: alone {alone}; captured {captured}; captured in a second generation {later}");
    }
    eprintln!("any other call, captured beside alone: {calls}");
    load_of_the_machine();
}

/// From exec to the first answer.
fn own_start(command: &[String], port: u16) -> Duration {
    let begun = Instant::now();
    let mut child = Command::new(&command[0]).args(&command[1..]).stdin(Stdio::null()).spawn().unwrap();
    while get(([127, 0, 0, 1], port).into(), "/health").0 != 200 {
        assert!(begun.elapsed() < DEADLINE, "no answer");
        park_timeout(Duration::from_micros(100));
    }
    let started = begun.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    started
}

#[test]
fn a_new_captured_generation_beside_the_servers_own_start() {
    let port = free_port();
    let zdr = Setup::of(&go(port)).listen(&[]).option("--bake", "0s").option("--drain-idle", "100ms").start();
    let mut load = watchers(zdr.address());
    let (mut own, mut first, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        zdr.wait_until("the old one to end", |status| in_seat(status, "draining").is_none());
        let other = free_port();
        own.push(own_start(&go(other), other));
        let (first_answer, verdict) = first_answer_after_reload(&zdr, &mut load);
        first.push(first_answer);
        told.push(verdict);
    }
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
    let (own, first, told) = (range(&own), range(&first), range(&told));
    eprintln!("Go: own start {own}; reload to first new answer {first}; verdict {told}");
    load_of_the_machine();
}

#[test]
fn what_zdr_and_the_keeper_of_a_captured_server_need() {
    let port = free_port();
    let zdr = Setup::of(&go(port)).listen(&[]).option("--bake", "0s").start();
    needed(&zdr, 0);
    for _ in 0..20 {
        assert_eq!(zdr.reload().code, 0, "{}", zdr.log());
    }
    needed(&zdr, 20);
    let pids = [vec![zdr.pid()], keepers(&zdr)].concat();
    let switches = || pids.iter().map(|pid| sum_of(*pid, "voluntary_ctxt_switches:")).sum::<u64>();
    let before = switches();
    park_timeout(Duration::from_secs(10));
    eprintln!("idle for 10 s: {} voluntary context switches of zdr and its keeper", switches() - before);
}

fn needed(zdr: &Zdr, times: u64) {
    zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    let keepers = wait_for("one keeper", || Some(keepers(zdr)).filter(|keepers| keepers.len() == 1));
    // Threads for blocking work stay a second.
    park_timeout(Duration::from_secs(2));
    for (name, pid) in [("zdr", zdr.pid()), ("its keeper", keepers[0])] {
        let (resident, open) = (resident_kib(pid), count_in(pid, "fd"));
        let (shared_out, private) = (in_memory(pid, &["Pss:"]), in_memory(pid, &["Private_Clean:", "Private_Dirty:"]));
        eprintln!(
            "{name} after {times} reloads: {resident} KiB resident, {shared_out} KiB proportional, {private} KiB private, \
             {open} descriptors"
        );
    }
}

fn keepers(zdr: &Zdr) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", zdr.pid())).unwrap();
    let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children.filter(|pid| name(*pid).trim() == "zdr-keeper").collect()
}

/// The sum of these lines of proc_pid_smaps(5), in KiB.
fn in_memory(pid: i32, fields: &[&str]) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = text.lines().filter(|line| fields.iter().any(|field| line.starts_with(field)));
    lines.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}
