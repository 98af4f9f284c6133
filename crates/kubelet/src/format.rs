//! Texts in the forms that Kubernetes' messages have (Go's verbs and durations).

use api::k8s::core::v1::Pod;
use std::time::Duration;

/// `name_namespace(uid)`, as messages name a pod.
pub fn pod(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}

/// Go's `%v` of a list of strings: `[a b]`.
pub fn list<S: AsRef<str>>(items: &[S]) -> String {
    format!("[{}]", items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" "))
}

/// Go's `%q`: quoted, with backslash escapes.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Go's text of a duration, `1m20s`, `1.5s`, `20ms`.
pub fn duration(value: Duration) -> String {
    if value.is_zero() {
        return "0s".into();
    }
    if value < Duration::from_secs(1) {
        let (unit, per) = match value.as_nanos() {
            0..1_000 => ("ns", 1.0),
            1_000..1_000_000 => ("µs", 1e3),
            _ => ("ms", 1e6),
        };
        return format!("{}{unit}", value.as_nanos() as f64 / per);
    }
    let (hours, minutes) = (value.as_secs() / 3600, value.as_secs() / 60 % 60);
    let seconds = (value.as_secs() % 60) as f64 + f64::from(value.subsec_nanos()) / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_prints_them() {
        let table = [
            (10_000, "10s"),
            (80_000, "1m20s"),
            (300_000, "5m0s"),
            (20, "20ms"),
            (1_500, "1.5s"),
            (0, "0s"),
            (3_601_000, "1h0m1s"),
        ];
        for (millis, want) in table {
            assert_eq!(duration(Duration::from_millis(millis)), want);
        }
    }

    #[test]
    fn lists_and_quotes() {
        assert_eq!(list(&["a", "b"]), "[a b]");
        assert_eq!(quote("a\"b\n"), "\"a\\\"b\\n\"");
    }
}
