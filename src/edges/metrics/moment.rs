//! How things are at the moment of a scrape: the report as gauges, and what zdr's own process uses.
//!
//! Asks nobody for it: the report was made before.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Unit;

use super::process::Process;
use super::{Words, word};
use crate::edges::admin::{Health, Report, Row};
use crate::supervisor::SeatName;

const SEATS: [SeatName; 3] = [SeatName::Starting, SeatName::Serving, SeatName::Draining];

const NO_EXEMPLAR: Option<&Exemplar<Words<0>, f64>> = None;

/// Processor time of serving generations, added up from one scrape to the next. The figure of the kernel begins anew with every
/// generation, and falls when a process ends that nobody waited for; `rate` would take that for a counter that began anew.
#[derive(Clone, Debug, Default)]
pub(super) struct TreeTime(Arc<Seen>);

/// Written by one thread, and only at scrapes.
#[derive(Debug, Default)]
struct Seen {
    generation: AtomicU64,
    millis: AtomicU64,
    total: AtomicU64,
}

impl TreeTime {
    pub(super) fn add(&self, generation: u64, time: Duration) -> Duration {
        let Seen { generation: last, millis, total } = &*self.0;
        let now = u64::try_from(time.as_millis()).unwrap_or_default();
        let before =
            if last.swap(generation, Ordering::Relaxed) == generation { millis.load(Ordering::Relaxed) } else { 0 };
        millis.store(now, Ordering::Relaxed);
        let more = now.saturating_sub(before);
        Duration::from_millis(total.fetch_add(more, Ordering::Relaxed) + more)
    }

    pub(super) fn so_far(&self) -> Duration {
        Duration::from_millis(self.0.total.load(Ordering::Relaxed))
    }
}

/// How things are at this moment.
#[derive(Debug)]
pub(super) struct Moment {
    report: Report,
    process: Process,
    tree_time: Duration,
}

impl Moment {
    pub(super) fn new(report: Report, tree_time: &TreeTime) -> Self {
        let used = Duration::try_from_secs_f64(report.cpu_secs).unwrap_or_default();
        let tree_time = report.used_by.map_or_else(|| tree_time.so_far(), |serving| tree_time.add(serving.0, used));
        Self { report, process: Process::now(), tree_time }
    }

    fn seats<V: Default + std::ops::AddAssign>(&self, of: impl Fn(&Row) -> V) -> Vec<(Words<1>, V)> {
        let sum = |seat| {
            let mut sum = V::default();
            self.report.generations.iter().filter(|row| row.seat == seat).for_each(|row| sum += of(row));
            ([("seat", word(seat))], sum)
        };
        SEATS.map(sum).into()
    }
}

/// Writes families one by one.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in samples {
            encoder.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in samples {
            encoder.encode_family(&labels)?.encode_counter(&value, NO_EXEMPLAR)?;
        }
        Ok(())
    }

    fn gauge<V: EncodeGaugeValue>(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        value: Option<V>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        value.map_or(Ok(()), |value| encoder.encode_gauge(&value))
    }

    fn counter<V: EncodeCounterValue>(
        &mut self,
        (name, unit): (&str, Option<Unit>),
        help: &str,
        value: Option<V>,
    ) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        value.map_or(Ok(()), |value| encoder.encode_counter(&value, NO_EXEMPLAR))
    }

    fn report(&mut self, moment: &Moment) -> fmt::Result {
        let report = &moment.report;
        self.gauge(
            ("zdr_ready", None),
            "Whether new connections are answered and will be.",
            Some(u32::from(report.ready)),
        )?;
        self.gauge(
            ("zdr_generation", None),
            "The serving generation; 0 where nothing serves.",
            Some(report.generation.map_or(0, |serving| serving.0)),
        )?;
        self.gauges(
            ("zdr_instances", None),
            "Living instances, by the seat of their generation.",
            moment.seats(|row| row.instances.iter().filter(|instance| instance.pid.is_some()).count()),
        )?;
        self.gauge(
            ("zdr_config_version", None),
            "Which configuration serves, or served last; the first is 1.",
            Some(report.config_version),
        )?;
        self.gauge(
            ("zdr_paused", None),
            "Whether new connections are held.",
            Some(u32::from(report.paused_secs.is_some())),
        )?;
        self.gauges(("zdr_connections", None), "Open connections, by seat.", moment.seats(|row| row.connections))?;
        self.gauges(
            ("zdr_connections_busy", None),
            "Connections with a request in flight, by seat.",
            moment.seats(|row| row.in_flight),
        )?;
        self.counter(("zdr_crashes", None), "How often an instance died while it served.", Some(report.crashes))?;
        self.gauge(
            ("zdr_tree_memory", Some(Unit::Bytes)),
            "Resident memory of the processes of the serving generation.",
            Some(report.memory_bytes),
        )?;
        self.counter(
            ("zdr_tree_cpu", Some(Unit::Seconds)),
            "Processor time of the processes of serving generations, as seen from one scrape to the next.",
            Some(moment.tree_time.as_secs_f64()),
        )
    }

    fn listeners(&mut self, report: &Report) -> fmt::Result {
        let listener = |name: &String| [("listener", name.clone())];
        // Datagrams do not wait to be accepted.
        let accepting = || report.listeners.iter().filter(|row| row.queue_limit > 0);
        self.gauges(
            ("zdr_accept_queue", None),
            "Connections that wait to be accepted, in all slots of a listener.",
            accepting().map(|row| (listener(&row.name), row.queue)),
        )?;
        self.gauges(
            ("zdr_accept_queue_limit", None),
            "How many connections may wait in the slot of a listener that new ones go to.",
            accepting().map(|row| (listener(&row.name), row.queue_limit)),
        )?;
        self.counters(
            ("zdr_accept_overflows", None),
            "Connections and datagrams that were dropped because a slot of a listener was full.",
            report.listeners.iter().map(|row| (listener(&row.name), row.overflows)),
        )
    }

    fn checks(&mut self, report: &Report) -> fmt::Result {
        let labels = |name: &String, critical: bool| [("check", name.clone()), ("critical", critical.to_string())];
        self.gauges(
            ("zdr_check_healthy", None),
            "Whether a check finds that all is well.",
            report
                .checks
                .iter()
                .map(|(name, check)| (labels(name, check.critical), u32::from(check.state == Health::Healthy))),
        )
    }

    fn process(&mut self, process: &Process) -> fmt::Result {
        self.counter(("process_cpu", Some(Unit::Seconds)), "Processor time of zdr itself.", process.cpu_seconds)?;
        self.gauge(
            ("process_resident_memory", Some(Unit::Bytes)),
            "Resident memory of zdr itself.",
            process.resident_bytes,
        )?;
        self.gauge(
            ("process_virtual_memory", Some(Unit::Bytes)),
            "Virtual memory of zdr itself.",
            process.virtual_bytes,
        )?;
        self.gauge(("process_open_fds", None), "File descriptors that zdr has open.", process.open_descriptors)?;
        self.gauge(("process_max_fds", None), "File descriptors that zdr may have open.", process.max_descriptors)?;
        self.gauge(
            ("process_start_time", Some(Unit::Seconds)),
            "When zdr was started, in Unix time.",
            process.started_at,
        )
    }

    fn build(&mut self, version: &str) -> fmt::Result {
        let help = "The running version of zdr.";
        self.0.encode_descriptor("zdr_build", help, None, MetricType::Info)?.encode_info(&[("version", version)])
    }
}

impl Collector for Moment {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        page.report(self)?;
        page.listeners(&self.report)?;
        page.checks(&self.report)?;
        page.process(&self.process)?;
        page.build(self.report.version)
    }
}
