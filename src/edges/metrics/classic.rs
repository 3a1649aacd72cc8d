//! OpenMetrics in the text format from before it, version 0.0.4: the same samples, other lines about them.
//!
//! Understands what zdr writes and no more: families with a help and a type, without exemplars, timestamps or creation times.

use std::fmt::Write;

/// A text of OpenMetrics in the format from before it.
///
/// There, counters and infos have the name of their samples, there is no type for an info, and neither units nor an end are told.
pub(super) fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + 512);
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some((_, sentence)) = about(line, "HELP") {
            help = sentence;
        } else if let Some((family, kind)) = about(line, "TYPE") {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            // Writing into a string cannot fail.
            let _ = writeln!(text, "# HELP {family}{suffix} {help}\n# TYPE {family}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The family that a line is about, and what it says of it.
fn about<'a>(line: &'a str, what: &str) -> Option<(&'a str, &'a str)> {
    line.strip_prefix("# ")?.strip_prefix(what)?.strip_prefix(' ')?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_stay_and_what_is_said_of_them_changes() {
        let openmetrics = "\
# HELP a Counts.\n# TYPE a counter\na_total{x=\"# EOF\"} 1\n\
# HELP b_bytes Is.\n# TYPE b_bytes gauge\n# UNIT b_bytes bytes\nb_bytes 2.5\n\
# HELP c Says.\n# TYPE c info\nc_info{v=\"\\\"\\\\\\n\"} 1\n\
# HELP d Takes.\n# TYPE d histogram\nd_sum 3.0\nd_count 1\nd_bucket{le=\"+Inf\"} 1\n\
# HELP e May be.\n# TYPE e unknown\ne 0\n\
# EOF\n";
        let wanted = "\
# HELP a_total Counts.\n# TYPE a_total counter\na_total{x=\"# EOF\"} 1\n\
# HELP b_bytes Is.\n# TYPE b_bytes gauge\nb_bytes 2.5\n\
# HELP c_info Says.\n# TYPE c_info gauge\nc_info{v=\"\\\"\\\\\\n\"} 1\n\
# HELP d Takes.\n# TYPE d histogram\nd_sum 3.0\nd_count 1\nd_bucket{le=\"+Inf\"} 1\n\
# HELP e May be.\n# TYPE e untyped\ne 0\n";
        assert_eq!(classic(openmetrics), wanted);
    }
}
