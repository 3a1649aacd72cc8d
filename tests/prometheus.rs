//! Metrics as those see them who read them: promtool, a strict parser of OpenMetrics, a real Prometheus; and the alerts and
//! the dashboard of contrib/, which name no metric that is not there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::admin::health_address;
use crate::harness::{DEADLINE, Setup, Told, Zdr, sample, wait_for};
use crate::metrics::{CLASSIC, OPENMETRICS, samples, scrape};

const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/prometheus-alerts.yml");
const STORIES_OF_ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/prometheus-alerts.test.yml");
const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/grafana-dashboard.json");

/// Reads OpenMetrics as its specification demands, and says how many families there are.
const STRICT: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
print(len(list(text_string_to_metric_families(sys.stdin.read()))))
";

/// Runs a program with this input to its end.
fn told(program: &str, arguments: &[&str], input: &str) -> Told {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; tests/run installs it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

fn promtool(arguments: &[&str], input: &str) -> Told {
    told("promtool", arguments, input)
}

#[track_caller]
fn nothing_to_complain_about(zdr: &Zdr, state: &str) {
    let classic = scrape(zdr, CLASSIC);
    let lint = promtool(&["check", "metrics"], &classic);
    assert_eq!((lint.code, lint.out.as_str(), lint.error.as_str()), (0, "", ""), "{state}\n{classic}");
    let openmetrics = scrape(zdr, OPENMETRICS);
    let parsed = told("/usr/bin/python3", &["-c", STRICT], &openmetrics);
    let families = classic.lines().filter(|line| line.starts_with("# TYPE ")).count().to_string();
    assert_eq!(
        (parsed.code, parsed.out.trim(), parsed.error.as_str()),
        (0, families.as_str(), ""),
        "{state}\n{openmetrics}"
    );
}

#[test]
fn promtool_and_a_strict_parser_have_nothing_to_complain_about_in_any_state() {
    let zdr = Setup::of(&sample(&["--bad", "hang"])).begin();
    wait_for("the first generation", || zdr.log().contains("generation 1 started").then_some(()));
    nothing_to_complain_about(&zdr, "starting");
    let setup = Setup::of(&sample(&[])).option("--bake", "60s");
    let path = format!("path=unix:{}", setup.place("app.sock"));
    let zdr = setup.listen(&["127.0.0.1:0", "udp://127.0.0.1:0", &path]).start();
    nothing_to_complain_about(&zdr, "serving");
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:3"])).code, 3);
    nothing_to_complain_about(&zdr, "after a reload that failed");
    assert_eq!(zdr.reload().code, 0);
    nothing_to_complain_about(&zdr, "draining");
}

#[test]
fn promtool_would_complain() {
    let lint =
        promtool(&["check", "metrics"], "# HELP zdr_reloads Reloads.\n# TYPE zdr_reloads counter\nzdr_reloads 1\n");
    assert!(lint.code != 0 && lint.error.contains("_total"), "{lint:?}");
    let parsed = told("/usr/bin/python3", &["-c", STRICT], "# TYPE a counter\na 1\n# EOF\n");
    assert_ne!(parsed.code, 0, "{parsed:?}");
}

#[test]
fn the_alerts_are_well_formed_and_fire_as_their_stories_tell() {
    let checked = promtool(&["check", "rules", ALERTS], "");
    assert!(checked.code == 0 && checked.out.contains("SUCCESS"), "{checked:?}");
    let tested = promtool(&["test", "rules", STORIES_OF_ALERTS], "");
    assert!(tested.code == 0 && tested.out.contains("SUCCESS"), "{tested:?}");
    let (alerts, stories) = (fs::read_to_string(ALERTS).unwrap(), fs::read_to_string(STORIES_OF_ALERTS).unwrap());
    for name in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(stories.contains(&format!("- alertname: {name}\n")), "no story lets {name} fire");
    }
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with("zdr_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[track_caller]
fn all_are_there(named: &BTreeSet<String>) {
    let zdr = Setup::of(&sample(&[])).start();
    let scraped = samples(&scrape(&zdr, CLASSIC)).into_keys();
    let there: BTreeSet<String> = scraped.map(|name| name.split('{').next().unwrap().to_owned()).collect();
    let missing: Vec<_> = named.difference(&there).collect();
    assert!(missing.is_empty(), "zdr has no {missing:?}");
}

#[test]
fn the_alerts_name_no_metric_that_is_not_there() {
    let alerts = fs::read_to_string(ALERTS).unwrap();
    let expressions: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    let named = named(&expressions.join("\n"));
    assert!(named.len() > 8, "{named:?}");
    all_are_there(&named);
}

/// Everything that stands under this key, however deep.
fn under<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(fields) => {
            let deeper = fields.iter().filter(|(name, _)| *name != key).flat_map(|(_, value)| under(value, key));
            fields.get(key).into_iter().chain(deeper).collect()
        }
        Value::Array(all) => all.iter().flat_map(|value| under(value, key)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_query_of_the_dashboard_can_be_parsed_and_names_metrics_that_are_there() {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(DASHBOARD).unwrap()).unwrap();
    let queries: Vec<&str> = under(&dashboard, "expr").into_iter().map(|query| query.as_str().unwrap()).collect();
    assert!(queries.len() > 25, "{queries:?}");
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, query) in queries.iter().enumerate() {
        // What Grafana writes in their place.
        let query = query
            .replace("$__rate_interval", "1m")
            .replace("$__range", "6h")
            .replace("$job", "zdr")
            .replace("$instance", ".*");
        assert!(!query.contains('$'), "{query}");
        writeln!(rules, "  - record: query:{number}\n    expr: {}", Value::from(query)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    fs::write(&file, rules).unwrap();
    let checked = promtool(&["check", "rules", file.to_str().unwrap()], "");
    assert!(
        checked.code == 0 && checked.out.contains(&format!("SUCCESS: {} rules found", queries.len())),
        "{checked:?}"
    );
    let definitions = under(&dashboard, "definition").into_iter().filter_map(Value::as_str).collect::<Vec<_>>();
    assert!(!definitions.is_empty());
    all_are_there(&named(&[queries, definitions].concat().join("\n")));
}

#[test]
fn the_dashboard_can_be_imported_beside_any_data_source() {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(DASHBOARD).unwrap()).unwrap();
    assert_eq!(dashboard["__inputs"][0]["name"], "DS_PROMETHEUS");
    assert_eq!((&dashboard["id"], &dashboard["title"]), (&Value::Null, &"zdr".into()));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${DS_PROMETHEUS}", "{title}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(targets.iter().all(|target| target["datasource"]["uid"] == "${DS_PROMETHEUS}"), "{title}");
        }
        let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        for (x, y) in (0..at("w")).flat_map(|x| (0..at("h")).map(move |y| (x, y))) {
            assert!(at("x") + x < 24 && taken.insert((at("x") + x, at("y") + y)), "{title} lies over another one");
        }
    }
}

/// A real Prometheus, on a port that the kernel chooses.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(folder: &Path, configuration: &str) -> Self {
        let file = folder.join("prometheus.yml");
        fs::write(&file, configuration).unwrap();
        let log = folder.join("prometheus.log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus: {error}; tests/run installs it"));
        let mut prometheus = Self { child, address: ([127, 0, 0, 1], 0).into() };
        prometheus.address = wait_for("Prometheus to listen", || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            assert!(prometheus.child.try_wait().unwrap().is_none(), "{text}");
            let line = text.lines().find(|line| line.contains("\"Listening on\""))?;
            line.split_once("address=")?.1.trim().parse().ok()
        });
        prometheus
    }

    /// What its interface answers, `None` while it does not.
    fn ask(&self, path: &str) -> Option<Value> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// Waits until a query has this value for both jobs.
    #[track_caller]
    fn both_have(&self, query: &str, wanted: &str) {
        let escape =
            |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        let path = format!("/api/v1/query?query={}", query.bytes().map(escape).collect::<String>());
        let mut last = Value::Null;
        let job = |result: &Value| {
            Some((result["metric"]["job"].as_str()?.to_owned(), result["value"][1].as_str()?.to_owned()))
        };
        let wanted = ["classic", "zdr"].map(|job| (job.to_owned(), wanted.to_owned())).into();
        wait_for(&format!("{query} to be {wanted:?}"), || {
            last = self.ask(&path)?;
            let found: BTreeSet<_> = last["result"].as_array()?.iter().filter_map(job).collect();
            (found == wanted).then_some(())
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes scrapes on to a health address, as they are but for asking for the classic format.
fn asks_for_the_classic_format(health: SocketAddr) -> SocketAddr {
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = door.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in door.incoming().flatten() {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut more = [0; 1024];
                match client.read(&mut more) {
                    Ok(0) | Err(_) => break,
                    Ok(length) => request.extend(&more[..length]),
                }
            }
            let Ok(mut zdr) = TcpStream::connect(health) else { continue };
            let _ = write!(zdr, "GET /metrics HTTP/1.0\r\nAccept: {CLASSIC}\r\n\r\n");
            let _ = std::io::copy(&mut zdr, &mut client);
        }
    });
    address
}

#[test]
fn a_real_prometheus_scrapes_both_formats_and_its_alerts_fire() {
    let zdr = Setup::of(&sample(&[])).option("--health", "127.0.0.1:0").start();
    let health = health_address(&zdr);
    let classic = asks_for_the_classic_format(health);
    // At once, where users wait a minute.
    let rules = zdr.folder().join("alerts.yml");
    let alerts = fs::read_to_string(ALERTS).unwrap();
    fs::write(&rules, alerts.replace("for: 1m", "for: 0s")).unwrap();
    let job =
        |name: &str, at: SocketAddr| format!("- {{job_name: {name}, static_configs: [{{targets: [\"{at}\"]}}]}}\n");
    let configuration = format!(
        "global: {{scrape_interval: 100ms, scrape_timeout: 100ms, evaluation_interval: 100ms}}\n\
         rule_files: [\"{}\"]\nscrape_configs:\n{}{}",
        rules.display(),
        job("zdr", health),
        job("classic", classic),
    );
    let prometheus = Prometheus::start(zdr.folder(), &configuration);
    prometheus.both_have("up", "1");
    prometheus.both_have("zdr_generation", "1");
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:3"])).code, 3);
    prometheus.both_have("zdr_reloads_total{outcome=\"done\",reason=\"ready\"}", "1");
    prometheus.both_have("zdr_reloads_total{outcome=\"kept\",reason=\"exited\"}", "1");
    prometheus.both_have("sum by (job) (zdr_reloads_total)", "2");
    prometheus.both_have("zdr_start_duration_seconds_count", "2");
    prometheus.both_have("zdr_build_info", "1");
    prometheus.both_have("count by (job) (histogram_quantile(0.5, zdr_start_duration_seconds_bucket))", "1");
    prometheus.both_have("up", "1");
    prometheus.both_have("ALERTS{alertname=\"ZdrReloadFailed\",alertstate=\"firing\"}", "1");
    let loaded = prometheus.ask("/api/v1/rules").unwrap();
    let states = under(&loaded, "health");
    assert_eq!(states.len(), alerts.matches("- alert: ").count());
    assert!(states.iter().all(|health| **health == "ok"), "{loaded}");
    assert_eq!(zdr.reload().code, 0);
    prometheus.both_have("zdr_reload_last_success unless on (job) ALERTS{alertname=\"ZdrReloadFailed\"}", "1");
}
