//! Which of the two text formats a scraper asks for, decided as the client libraries of Prometheus do.
//!
//! Refuses nobody: who asks for neither gets the one that everybody reads.

use std::str::FromStr;

/// A format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus from before, which curl and browsers show as well.
    Classic,
}

impl Format {
    /// What the fields of an Accept header prefer (RFC 9110 §12.5.1). Of two that are equally welcome the first counts.
    /// `*/*` is no wish for OpenMetrics.
    pub fn wanted<'a>(accept: impl Iterator<Item = &'a str>) -> Self {
        let offers = accept.flat_map(|field| field.split(',')).filter_map(offer);
        let best = offers.fold((Self::Classic, 0.0), |best, offer| if offer.1 > best.1 { offer } else { best });
        best.0
    }

    /// What it is called.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A format that is welcome, and how welcome it is.
fn offer(wish: &str) -> Option<(Format, f32)> {
    let mut parts = wish.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let (mut version, mut welcome) = (None, 1.0);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "version" => version = Some(value.trim().trim_matches('"')),
            "q" => welcome = f32::from_str(value.trim()).unwrap_or(1.0),
            _ => {}
        }
    }
    match (kind.as_str(), version) {
        ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => Some((Format::OpenMetrics, welcome)),
        ("text/plain", None | Some("0.0.4")) => Some((Format::Classic, welcome)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Format::{Classic, OpenMetrics};
    use super::*;

    #[test]
    fn every_scraper_gets_what_it_prefers() {
        for (accept, format) in [
            // Prometheus 2.42, 2.55 and 3.5, in this order.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OpenMetrics,
            ),
            // One that was told `scrape_protocols: [PrometheusText0.0.4, OpenMetricsText1.0.0]`.
            ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,*/*;q=0.3", Classic),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; Q=0.9, text/plain; q=0.8", OpenMetrics),
            ("text/plain", Classic),
            ("text/plain, application/openmetrics-text", Classic),
            ("application/openmetrics-text, text/plain", OpenMetrics),
            ("application/openmetrics-text;q=0, */*", Classic),
            ("application/openmetrics-text;q=nan", Classic),
            ("application/openmetrics-text;version=9.0.0", Classic),
            // curl, a browser, and nonsense.
            ("*/*", Classic),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Classic),
            ("", Classic),
            (";;=,q,;q=;", Classic),
        ] {
            assert_eq!(Format::wanted([accept].into_iter()), format, "{accept}");
        }
        assert_eq!(Format::wanted([].into_iter()), Classic);
        assert_eq!(Format::wanted(["text/plain;q=0.5", "application/openmetrics-text"].into_iter()), OpenMetrics);
    }
}
