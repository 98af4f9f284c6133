//! Prometheus' text format.

use std::fmt::Write;

/// Content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// A text that grows metric by metric.
#[derive(Default)]
pub struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    /// Begins a metric.
    pub fn help(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A value with the time it is of, Unix milliseconds.
    pub fn at(&mut self, labels: &[(&str, String)], value: f64, millis: i64) {
        self.line(labels, value);
        let _ = writeln!(self.text, " {millis}");
    }

    /// A value of now.
    pub fn now(&mut self, labels: &[(&str, String)], value: f64) {
        self.line(labels, value);
        self.text.push('\n');
    }

    fn line(&mut self, labels: &[(&str, String)], value: f64) {
        self.text.push_str(self.name);
        if !labels.is_empty() {
            let escape = |v: &str| v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let list: Vec<String> = labels.iter().map(|(n, v)| format!("{n}=\"{}\"", escape(v))).collect();
            let _ = write!(self.text, "{{{}}}", list.join(","));
        }
        let _ = write!(self.text, " {value}");
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut out = Exposition::default();
        out.help("a", "gauge", "b");
        out.now(&[("l", "x\"\\\n".into())], 2.0);
        assert_eq!(out.finish(), "# HELP a b\n# TYPE a gauge\na{l=\"x\\\"\\\\\\n\"} 2\n");
    }
}
