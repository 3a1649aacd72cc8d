//! The result of a rehearsal, and how it is shown: aligned, within 80 columns, the last line the sum of it. It never
//! measures anything itself.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::load::report::{Latencies, Report, Tally};
use super::supervised::{End, Verdict};

const COLUMNS: usize = 80;

/// So many failures are told in words.
const TRACES: usize = 6;

/// What the rehearsal found.
#[derive(Debug)]
pub struct Table {
    pub(super) command: String,
    pub(super) address: SocketAddr,
    pub(super) planned: u32,
    /// Whether the answers say which generation they are from.
    pub(super) numbered: bool,
    pub(super) report: Report,
    pub(super) reloads: Vec<Reload>,
    pub(super) end: End,
}

/// One reload.
#[derive(Debug)]
pub(super) struct Reload {
    pub(super) release: Release,
    pub(super) verdict: Verdict,
    /// From the asking to the first answer of the new generation; `None` when it could not be told.
    pub(super) answered_after: Option<Duration>,
}

/// What was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    Good,
    Bad,
}

impl Release {
    pub(super) fn aside(self) -> &'static str {
        match self {
            Self::Good => "",
            Self::Bad => ", a bad release",
        }
    }
}

impl Table {
    /// Whether everything went as promised.
    pub fn passed(&self) -> bool {
        self.report.failed() == 0 && self.problems().is_empty()
    }

    /// Writes it for people.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{}",
            wrap(&format!("{} reloads of {} under load, on {}", self.planned, self.command, self.address), "")
        )?;
        writeln!(out)?;
        self.write_requests(out)?;
        self.write_latencies(out)?;
        self.write_reloads(out)?;
        self.write_failures(out)?;
        writeln!(out, "{}", self.sum())
    }

    fn write_requests(&self, out: &mut dyn Write) -> io::Result<()> {
        let tallies = [&self.report.new_connection, &self.report.keep_alive];
        let row = |out: &mut dyn Write, name: &str, count: &dyn Fn(&Tally) -> u64| {
            let [new, kept] = tallies.map(count);
            writeln!(out, "{}", columns(name, &[new.to_string(), kept.to_string(), (new + kept).to_string()]))
        };
        let heads = ["new connection", "keep-alive", "total"].map(str::to_owned);
        writeln!(out, "{}", columns("requests", &heads))?;
        row(out, "  answered", &|tally| tally.ok)?;
        row(out, "  lost", &Tally::failed)?;
        let mut kinds: Vec<_> = tallies.iter().flat_map(|tally| tally.failures.keys().copied()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            row(out, &format!("    {kind}"), &|tally| tally.failures.get(&kind).copied().unwrap_or(0))?;
        }
        if tallies.iter().any(|tally| tally.closed_idle > 0) {
            row(out, "  sent again *", &|tally| tally.closed_idle)?;
        }
        writeln!(out)
    }

    fn write_latencies(&self, out: &mut dyn Write) -> io::Result<()> {
        let heads = ["half within", "99% within", "longest"].map(str::to_owned);
        writeln!(out, "{}", columns("time to answer", &heads))?;
        let (new, kept) = (&self.report.new_connection, &self.report.keep_alive);
        for (name, one, other) in
            [("  steady", &new.steady, &kept.steady), ("  while reloading", &new.reload, &kept.reload)]
        {
            let mut both = one.clone();
            both.add(other);
            writeln!(out, "{}", columns(name, &latencies(&both)))?;
        }
        writeln!(out)
    }

    fn write_reloads(&self, out: &mut dyn Write) -> io::Result<()> {
        let good = || self.reloads.iter().filter(|reload| reload.release == Release::Good);
        let served: Vec<_> = good().filter(|reload| reload.verdict.code == 0).collect();
        writeln!(out, "reloads")?;
        writeln!(out, "  good releases       {} of {} served", served.len(), good().count())?;
        let measure = |reload: &&Reload| {
            if self.numbered { reload.answered_after } else { Some(reload.verdict.after) }
        };
        let mut times: Vec<_> = served.iter().filter_map(measure).collect();
        times.sort_unstable();
        if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
            let what = if self.numbered { "first answer after" } else { "verdict after" };
            writeln!(out, "  {what:<20}{} in the middle, {} at most", shown(*median), shown(*longest))?;
        }
        for bad in self.reloads.iter().filter(|reload| reload.release == Release::Bad) {
            writeln!(out, "  bad release         {}", outcome(&bad.verdict))?;
            if !bad.verdict.reason.is_empty() {
                writeln!(out, "{}", wrap(&bad.verdict.reason, "                      "))?;
            }
        }
        writeln!(out)?;
        if !self.numbered {
            let note = "The answers have no X-Generation header with the generation's number ($ZDR_GENERATION), \
                        so the time is that of the verdict.";
            writeln!(out, "{}\n", wrap(note, ""))?;
        }
        if self.report.new_connection.closed_idle + self.report.keep_alive.closed_idle > 0 {
            let note = "* These crossed the closing of an idle connection, which no server can avoid and every client \
                        may answer by sending again (RFC 9112, 9.3.1). None was lost by it.";
            writeln!(out, "{}\n", wrap(note, ""))?;
        }
        Ok(())
    }

    fn write_failures(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.passed() {
            return Ok(());
        }
        for problem in self.problems() {
            writeln!(out, "{}", wrap(&problem, ""))?;
        }
        for (kind, tally) in [("new connection", &self.report.new_connection), ("keep-alive", &self.report.keep_alive)]
        {
            for trace in tally.traces.iter().take(TRACES) {
                writeln!(out, "{}", wrap(&format!("{kind}, {trace}"), "  "))?;
            }
        }
        writeln!(out, "\nthe end of zdr's log:")?;
        for line in &self.end.log {
            writeln!(out, "  {line}")?;
        }
        writeln!(out)
    }

    /// What went wrong besides requests.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (number, Reload { release, verdict, .. }) in (1..).zip(&self.reloads) {
            match (release, verdict.code) {
                (Release::Good, 0) | (Release::Bad, 3) => {}
                (Release::Good, _) => {
                    let (outcome, reason) = (outcome(verdict), &verdict.reason);
                    problems.push(format!("reload {number} of a good release: {outcome}: {reason}"));
                }
                (Release::Bad, 0) => {
                    problems.push(format!("reload {number} promoted a bad release"));
                }
                (Release::Bad, code) => {
                    problems.push(format!("reload {number} of a bad release ended with exit code {code} instead of 3"));
                }
            }
        }
        if self.end.killed {
            problems.push("zdr did not stop when told to and was killed".to_owned());
        }
        if !self.end.left_over.is_empty() {
            problems.push(format!("processes were left over and were killed: {:?}", self.end.left_over));
        }
        problems
    }

    fn sum(&self) -> String {
        match (self.report.failed(), self.passed()) {
            (0, true) => "nothing was lost".to_owned(),
            (0, false) => "no request was lost, but not everything went as it should".to_owned(),
            (1, _) => "1 request was lost".to_owned(),
            (lost, _) => format!("{lost} requests were lost"),
        }
    }
}

fn outcome(verdict: &Verdict) -> String {
    match verdict.code {
        0 => "served".to_owned(),
        3 => "refused with exit code 3; the old one served on".to_owned(),
        code => format!("exit code {code}"),
    }
}

fn columns(name: &str, cells: &[String]) -> String {
    let mut line = format!("{name:<28}");
    for cell in cells {
        let _ = write!(line, "{cell:>16}");
    }
    line
}

fn latencies(latencies: &Latencies) -> [String; 3] {
    latencies.within([0.5, 0.99, 1.0]).map_or_else(|| ["-", "-", "-"].map(str::to_owned), |times| times.map(shown))
}

/// Three digits are as much as anybody wants to compare.
fn shown(time: Duration) -> String {
    match time.as_secs_f64() * 1000.0 {
        millis @ ..10.0 => format!("{millis:.2} ms"),
        millis @ ..100.0 => format!("{millis:.1} ms"),
        millis @ ..10_000.0 => format!("{millis:.0} ms"),
        millis => format!("{:.1} s", millis / 1000.0),
    }
}

fn wrap(text: &str, indent: &str) -> String {
    let mut lines = Vec::new();
    let mut line = indent.to_owned();
    for word in text.split_whitespace() {
        if line.len() > indent.len() && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
        }
        if line.len() > indent.len() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::load::report::{Failure, Trace};
    use super::*;

    fn table(failures: u64) -> Table {
        let mut report = Report::default();
        report.keep_alive.ok = 6_010;
        report.keep_alive.closed_idle = 1;
        report.keep_alive.steady.record(Duration::from_micros(420));
        let text = "end of stream before the first byte".to_owned();
        if failures > 0 {
            let trace = Trace { at: Duration::from_millis(1_500), failure: Failure::Closed, text };
            report.keep_alive.failures.insert(Failure::Closed, failures);
            report.keep_alive.traces.push(trace);
        }
        let reason = "generation 7 exited with code 1 before it was ready; generation 6 serves on".to_owned();
        let reload = |release, code| {
            let verdict = Verdict { code, reason: reason.clone(), after: Duration::from_millis(31) };
            Reload { release, verdict, answered_after: Some(Duration::from_millis(29)) }
        };
        Table {
            command: "the sample server".to_owned(),
            address: "127.0.0.1:40123".parse().unwrap(),
            planned: 2,
            numbered: true,
            report,
            reloads: vec![reload(Release::Good, 0), reload(Release::Bad, 3)],
            end: End::default(),
        }
    }

    fn written(table: &Table) -> String {
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_fits_eighty_columns_and_ends_with_the_sum() {
        for (failures, sum) in [(0, "nothing was lost"), (1, "1 request was lost"), (38, "38 requests were lost")] {
            let text = written(&table(failures));
            assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
            assert_eq!(text.lines().last(), Some(sum), "{text}");
        }
    }

    #[test]
    fn it_passes_when_nothing_is_lost_and_the_bad_release_is_refused() {
        assert!(table(0).passed());
        assert!(!table(1).passed());
        let mut promoted = table(0);
        promoted.reloads[1].verdict.code = 0;
        assert!(!promoted.passed());
        assert!(written(&promoted).contains("reload 2 promoted a bad release"));
        let mut failed = table(0);
        failed.reloads[0].verdict.code = 3;
        assert!(!failed.passed());
    }
}
