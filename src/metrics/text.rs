//! [`Text`]: Prometheus's text format, version 0.0.4, with numbers as Python's `prometheus_client` writes them.

use std::fmt::Write as _;

use super::Histogram;

/// What a family is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is at this moment.
    Gauge,
    /// Buckets, their sum and their count.
    Histogram,
}

/// A page that is being written.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    /// What an HTTP answer calls it.
    pub(crate) const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// The head of a family; its samples follow.
    pub(crate) fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// One number.
    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let value = number(value);
        match labels.as_slice() {
            [] => self.line(format_args!("{name} {value}")),
            labels => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    /// The page.
    pub(crate) fn into_string(self) -> String {
        self.0
    }

    /// The samples of one histogram. The count is the last bucket's, so that the two agree though somebody counts meanwhile.
    pub(crate) fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut count = 0;
        for (bound, within) in histogram.buckets() {
            let bound = number(bound);
            let labels: Vec<_> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample(&format!("{name}_bucket"), &labels, within as f64);
            count = within;
        }
        self.sample(&format!("{name}_count"), labels, count as f64);
        self.sample(&format!("{name}_sum"), labels, histogram.sum().as_secs_f64());
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{line}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        format!("{value:?}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn page(write: impl FnOnce(&mut Text)) -> String {
        let mut text = Text::default();
        write(&mut text);
        text.into_string()
    }

    #[test]
    fn values_of_labels_cannot_end_their_line_or_their_quotes() {
        let rows = [
            ("plain", "plain"),
            ("a\"b", "a\\\"b"),
            ("a\\", "a\\\\"),
            ("a\nb 1", "a\\nb 1"),
            ("\\\"\n", "\\\\\\\"\\n"),
            ("é{}=,", "é{}=,"),
        ];
        for (value, expected) in rows {
            let line = page(|text| text.sample("m", &[("a", value), ("b", "")], 1.0));
            assert_eq!(line, format!("m{{a=\"{expected}\",b=\"\"}} 1.0\n"));
        }
    }

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let rows = [(0.0, "0.0"), (0.005, "0.005"), (1e16, "1e16"), (f64::INFINITY, "+Inf"), (f64::NAN, "NaN")];
        for (value, expected) in rows {
            assert_eq!(page(|text| text.sample("m", &[], value)), format!("m {expected}\n"));
        }
    }

    #[test]
    fn a_help_is_one_line() {
        let head = page(|text| text.head("m", Kind::Gauge, "a \\ b\nc \"d\""));
        assert_eq!(head, "# HELP m a \\\\ b\\nc \"d\"\n# TYPE m gauge\n");
    }

    #[test]
    fn histograms_are_written_with_sum_and_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(6));
        histogram.observe(Duration::from_secs(20));
        let written = page(|text| text.histogram("r", &[("name", "add")], &histogram));
        assert!(
            written.starts_with("r_bucket{name=\"add\",le=\"0.005\"} 0.0\nr_bucket{name=\"add\",le=\"0.01\"} 1.0\n")
        );
        let last = "r_bucket{name=\"add\",le=\"+Inf\"} 2.0\nr_count{name=\"add\"} 2.0\nr_sum{name=\"add\"} 20.006\n";
        assert!(written.ends_with(last), "{written}");
    }
}
