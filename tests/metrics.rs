//! Metrics: what a scrape says of a story, in both formats, and that the manual knows all of it.
#![expect(clippy::float_cmp, reason = "counts are whole numbers, and a float that is the same text is the same")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::admin::health_address;
use crate::harness::{Setup, Zdr, get, in_seat, sample, wait_for};
use crate::python::server;

pub const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
pub const CLASSIC: &str = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

fn started() -> Zdr {
    Setup::of(&sample(&[])).option("--health", "127.0.0.1:0").start()
}

/// Head and body of a scrape that asks for this.
fn answer(zdr: &Zdr, accept: &str) -> (String, String) {
    let answer = zdr.ask_raw(&format!("GET /metrics HTTP/1.0\r\nAccept: {accept}\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    (head.to_lowercase(), body.to_owned())
}

pub fn scrape(zdr: &Zdr, accept: &str) -> String {
    answer(zdr, accept).1
}

/// The values of a text by their series.
pub fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// The value of each of these series, in whole numbers.
fn values<const N: usize>(zdr: &Zdr, series: [&str; N]) -> [i64; N] {
    let text = scrape(zdr, CLASSIC);
    let samples = samples(&text);
    series.map(|name| {
        let value = samples.get(name).unwrap_or_else(|| panic!("{name} is not in\n{text}"));
        format!("{value:.0}").parse().unwrap()
    })
}

/// All reloads that were counted.
fn reloads(zdr: &Zdr) -> BTreeMap<String, f64> {
    let all = samples(&scrape(zdr, CLASSIC)).into_iter();
    let reloads = all.filter_map(|(name, value)| Some((name.strip_prefix("zdr_reloads_total")?.to_owned(), value)));
    reloads.filter(|(_, value)| *value > 0.0).collect()
}

fn counted<const N: usize>(reloads: [(&str, f64); N]) -> BTreeMap<String, f64> {
    let text = |labels: &str| {
        let (outcome, reason) = labels.split_once(' ').unwrap();
        format!("{{outcome=\"{outcome}\",reason=\"{reason}\"}}")
    };
    reloads.map(|(labels, times)| (text(labels), times)).into()
}

fn end(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn a_scrape_is_answered_in_the_format_that_was_asked_for() {
    let zdr = started();
    let (head, body) = answer(&zdr, OPENMETRICS);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    assert!(body.ends_with("\n# EOF\n") && body.contains("\n# TYPE zdr_reloads counter\n"), "{body}");
    for accept in [CLASSIC, "*/*"] {
        let (head, body) = answer(&zdr, accept);
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        assert!(!body.contains("# EOF") && body.contains("\n# TYPE zdr_reloads_total counter\n"), "{body}");
    }
    let (status, body) = get(health_address(&zdr), "/metrics");
    assert_eq!((status, samples(&body)["zdr_ready"]), (200, 1.0));
    let head = zdr.ask_raw("HEAD /metrics HTTP/1.0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.0 200") && head.ends_with("\r\n\r\n"), "{head}");
    let refusal = zdr.ask_raw("POST /metrics HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    assert!(refusal.starts_with("HTTP/1.0 405") && refusal.to_lowercase().contains("allow: get, head"), "{refusal}");
}

#[test]
fn both_formats_have_the_same_samples() {
    let zdr = started();
    let names = |accept| samples(&scrape(&zdr, accept)).into_keys().collect::<BTreeSet<_>>();
    let classic = names(CLASSIC);
    assert_eq!(names(OPENMETRICS), classic);
    assert!(classic.len() > 80, "{classic:?}");
}

#[test]
fn reloads_good_and_bad_are_counted_by_outcome_and_reason() {
    let zdr = Setup::of(&sample(&[])).option("--ready", "/health").option("--ready-timeout", "1s").start();
    let last = ["zdr_reload_last_success", "zdr_generation", "zdr_start_duration_seconds_count"];
    assert_eq!((reloads(&zdr), values(&zdr, last)), (counted([]), [1, 1, 1]));
    assert_eq!(zdr.reload().code, 0);
    assert_eq!((reloads(&zdr), values(&zdr, last)), (counted([("done ready", 1.0)]), [1, 2, 2]));
    let times = |zdr: &Zdr| {
        let samples = samples(&scrape(zdr, CLASSIC));
        let at = |what| samples[&format!("zdr_reload_last_{what}_timestamp_seconds")];
        assert!(at("success") > samples["process_start_time_seconds"], "{samples:?}");
        (at("success"), at("attempt"))
    };
    let good = times(&zdr);
    assert_eq!(good.0, good.1);
    for bad in ["exit:3", "exit:4", "hang"] {
        assert_eq!(zdr.reload_to(&sample(&["--bad", bad])).code, 3);
    }
    assert_eq!(zdr.reload_to(&["/nowhere/server"]).code, 3);
    let bad = [("done ready", 1.0), ("kept exited", 2.0), ("kept timed_out", 1.0), ("kept not_started", 1.0)];
    assert_eq!((reloads(&zdr), values(&zdr, last)), (counted(bad), [0, 2, 2]));
    let failures =
        ["exited", "timed_out", "not_started"].map(|why| format!("zdr_start_failures_total{{reason=\"{why}\"}}"));
    assert_eq!(values(&zdr, [&failures[0], &failures[1], &failures[2], "zdr_kills_total"]), [2, 1, 1, 1]);
    let after = times(&zdr);
    assert!(after.0 == good.0 && after.1 > good.1, "{good:?} {after:?}");
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(values(&zdr, last), [1, 7, 3]);
}

#[test]
fn a_release_that_dies_after_its_promotion_counts_as_done_and_then_as_kept() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "60s").start();
    assert_eq!(zdr.reload().code, 0);
    end(zdr.server_pid());
    zdr.wait_until("the old one to serve again", |status| in_seat(status, "serving") == Some(1));
    assert_eq!(reloads(&zdr), counted([("done ready", 1.0), ("kept crashed", 1.0)]));
    let all = ["zdr_reload_last_success", "zdr_crashes_total", "zdr_generation", "zdr_cut_over_duration_seconds_count"];
    assert_eq!(values(&zdr, all), [0, 1, 1, 3]);
}

#[test]
fn a_crash_is_no_reload_and_what_starts_after_it_is_counted() {
    let zdr = started();
    end(zdr.server_pid());
    zdr.wait_until("the next one to serve", |status| in_seat(status, "serving") == Some(2));
    let all =
        ["zdr_crashes_total", "zdr_starts_total{reason=\"crash\"}", "zdr_starts_total{reason=\"boot\"}", "zdr_ready"];
    assert_eq!((values(&zdr, all), reloads(&zdr)), ([1, 1, 1, 1], counted([])));
}

#[test]
fn a_restart_counts_as_a_reload_and_what_drained_before_it_as_a_drain() {
    let zdr = started();
    assert_eq!(zdr.client(&["restart"]).code, 0);
    assert_eq!(reloads(&zdr), counted([("done ready", 1.0)]));
    assert_eq!(values(&zdr, ["zdr_drain_duration_seconds_count", "zdr_starts_total{reason=\"restart\"}"]), [1, 1]);
}

#[test]
fn where_nothing_serves_that_is_said() {
    let zdr = Setup::of(&sample(&["--bad", "hang"])).begin();
    wait_for("the first generation", || zdr.log().contains("generation 1 started").then_some(()));
    let all = ["zdr_ready", "zdr_generation", "zdr_reload_last_attempt_timestamp_seconds", "zdr_tree_memory_bytes"];
    assert_eq!(values(&zdr, all), [0, 0, 0, 0]);
    let seats = ["zdr_instances{seat=\"starting\"}", "zdr_instances{seat=\"serving\"}"];
    assert_eq!(values(&zdr, seats), [1, 0]);
    assert_eq!(values(&zdr, ["zdr_check_healthy{check=\"serving\",critical=\"true\"}"]), [0]);
}

#[test]
fn connections_are_counted_where_they_are_and_listeners_by_their_names() {
    let listeners = ["web=127.0.0.1:0", "udp://127.0.0.1:0"];
    let zdr = Setup::of(&sample(&[])).listen(&listeners).option("--drain-idle", "60s").option("--bake", "0s").start();
    let _old = [TcpStream::connect(zdr.address()).unwrap(), TcpStream::connect(zdr.address()).unwrap()];
    let seated = |seat: &str| format!("zdr_connections{{seat=\"{seat}\"}}");
    wait_for("two connections", || (values(&zdr, [&seated("serving")]) == [2]).then_some(()));
    assert_eq!(zdr.reload().code, 0);
    let _new = TcpStream::connect(zdr.address()).unwrap();
    wait_for("one more of the next generation", || {
        (values(&zdr, [&seated("serving"), &seated("draining"), "zdr_instances{seat=\"draining\"}"]) == [1, 2, 1])
            .then_some(())
    });
    let samples = samples(&scrape(&zdr, CLASSIC));
    let status = zdr.status();
    assert_eq!(
        Some(samples["zdr_accept_queue_limit{listener=\"web\"}"]),
        status["listeners"][0]["queue_limit"].as_f64()
    );
    assert_eq!(samples["zdr_accept_queue{listener=\"web\"}"], 0.0);
    let udp = status["listeners"][1]["name"].as_str().unwrap();
    assert_eq!(samples[&format!("zdr_accept_overflows_total{{listener=\"{udp}\"}}")], 0.0);
    assert!(!samples.contains_key(&format!("zdr_accept_queue{{listener=\"{udp}\"}}")));
    assert!(samples["zdr_tree_memory_bytes"] > 100_000.0 && samples["process_resident_memory_bytes"] > 100_000.0);
}

#[test]
fn every_instance_is_counted_and_so_is_a_pause() {
    let zdr = Setup::of(&sample(&[])).option("--instances", "3").start();
    let all = ["zdr_instances{seat=\"serving\"}", "zdr_starts_total{reason=\"boot\"}", "zdr_instances_lost_total"];
    assert_eq!(values(&zdr, all), [3, 1, 0]);
    end(zdr.server_pid());
    let is_back = |status: &serde_json::Value| status["instances"] == 3 && status["crashes"] == 1;
    zdr.wait_until("the lost one to be back", is_back);
    assert_eq!(values(&zdr, all), [3, 1, 1]);
    assert_eq!(values(&zdr, ["zdr_paused", "zdr_config_version", "zdr_crashes_total"]), [0, 1, 1]);
    assert_eq!(zdr.client(&["pause"]).code, 0);
    assert_eq!(values(&zdr, ["zdr_paused"]), [1]);
    assert_eq!(zdr.client(&["resume"]).code, 0);
    assert_eq!(values(&zdr, ["zdr_paused"]), [0]);
}

#[test]
fn the_processor_time_of_an_old_generation_is_not_counted_again_after_a_cut_over() {
    let busy = server("while time.process_time() < 1: pass\nserve(listener(), lambda path: 'x')");
    let zdr = Setup::of(&busy).option("--bake", "60s").start();
    let total = || samples(&scrape(&zdr, CLASSIC))["zdr_tree_cpu_seconds_total"];
    let before = total();
    assert!(before >= 0.9, "{before}");
    let body = json!({ "command": sample(&[]) }).to_string();
    let request = format!("POST /v1/reload HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert!(zdr.ask_raw(&request).contains("\"code\":0"), "{}", zdr.log());
    // So soon that its figures are those of before.
    let after = total();
    assert!((before..before + 0.9).contains(&after), "{before} {after}");
}

#[test]
fn checks_are_told_by_name_and_whether_they_are_critical() {
    let setup = Setup::of(&sample(&[])).option("--check", "db=exec:false,critical");
    let zdr = setup.option("--check", "up=exec:true").start();
    let checks = ["db\",critical=\"true", "up\",critical=\"false"]
        .map(|check| format!("zdr_check_healthy{{check=\"{check}\"}}"));
    wait_for("both checks", || (values(&zdr, [&checks[0], &checks[1]]) == [0, 1]).then_some(()));
}

#[test]
fn series_do_not_grow_with_reloads() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "0s").start();
    let names = || samples(&scrape(&zdr, CLASSIC)).into_keys().collect::<BTreeSet<_>>();
    let before = names();
    for _ in 0..3 {
        assert_eq!(zdr.reload().code, 0);
    }
    end(zdr.server_pid());
    zdr.wait_until("the next one to serve", |status| in_seat(status, "serving") == Some(5));
    assert_eq!(names(), before);
}

/// Every family of a classic text as the manual names it: `zdr_starts_total{reason}`.
fn families(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let labels = |name: &str| {
        let of_family =
            |line: &str| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once('}').map(|(all, _)| all.to_owned());
        let labels = text.lines().find_map(of_family)?;
        let keys = labels.split("\",").filter_map(|label| label.split('=').next());
        Some(format!("{{{}}}", keys.collect::<Vec<_>>().join(",")))
    };
    names.map(|name| format!("{name}{}", labels(name).unwrap_or_default())).collect()
}

#[test]
fn the_manual_describes_every_metric_with_its_labels() {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/zdr.1")).unwrap();
    let section = manual.split("\n.Sh METRICS\n").nth(1).and_then(|rest| rest.split("\n.Sh ").next()).unwrap();
    let described: BTreeSet<String> =
        section.lines().filter_map(|line| line.strip_prefix(".It Li ")).map(str::to_owned).collect();
    assert_eq!(described, families(&scrape(&started(), CLASSIC)));
}
