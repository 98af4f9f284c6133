//! The dump of a value that Kubernetes' controllers take hashes of: one line with the type of everything.
//!
//! Named after what it must equal: `k8s.io/utils/dump.ForHash` of an object decoded from protobuf, where
//! empty lists and maps are nil.

use super::names::go_name;
use crate::types::{Kind, Schema, Type};
use serde_json::Value;
use std::fmt::Write;

/// The dump of a value of the schema; empty where there is no such schema.
pub fn dump(schema: &str, value: &Value) -> String {
    let mut out = String::new();
    if let Some(schema) = Schema::find(schema) {
        out = format!("({})", schema.go_name());
        structure(&mut out, schema, value);
    }
    out
}

fn structure(out: &mut String, schema: Schema, value: &Value) {
    out.push('{');
    for (i, field) in schema.fields().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        out.push_str(&go_name(schema, field));
        out.push(':');
        let at = if field.is_inline() { value } else { value.get(field.name()).unwrap_or(&Value::Null) };
        typed(out, field.ty(), at);
    }
    out.push('}');
}

fn typed(out: &mut String, ty: Type, value: &Value) {
    let pointer = if ty.is_pointer() { "*" } else { "" };
    // Writing to a string cannot fail, here and below.
    let _ = write!(out, "({pointer}{})", ty.go());
    if ty.is_pointer() && value.is_null() {
        return out.push_str("<nil>");
    }
    plain(out, ty, value);
}

/// A value without its type.
fn plain(out: &mut String, ty: Type, value: &Value) {
    match ty.kind() {
        Kind::Struct => ty.schema().into_iter().for_each(|schema| structure(out, schema, value)),
        Kind::List => match value.as_array().filter(|list| !list.is_empty()) {
            None => out.push_str("<nil>"),
            Some(list) => {
                out.push('[');
                for (i, item) in list.iter().enumerate() {
                    out.push_str(if i > 0 { " " } else { "" });
                    ty.element().into_iter().for_each(|element| plain(out, element, item));
                }
                out.push(']');
            }
        },
        Kind::Map => match value.as_object().filter(|map| !map.is_empty()) {
            None => out.push_str("<nil>"),
            Some(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| key.as_str());
                out.push_str("map[");
                for (i, (key, item)) in entries.into_iter().enumerate() {
                    let _ = write!(out, "{}{key}:", if i > 0 { " " } else { "" });
                    ty.element().into_iter().for_each(|element| plain(out, element, item));
                }
                out.push(']');
            }
        },
        Kind::IntOrString => int_or_string(out, value),
        Kind::Quantity => quantity(out, value.as_str().unwrap_or("0")),
        Kind::Time | Kind::MicroTime => {
            out.push_str("{Time:(time.Time){wall:(uint64)0 ext:(int64)0 loc:(*time.Location)<nil>}}");
        }
        kind => match value {
            Value::String(text) => out.push_str(text),
            Value::Null => out.push_str(match kind {
                Kind::Bool => "false",
                Kind::Int32 | Kind::Int64 | Kind::Float64 => "0",
                Kind::String | Kind::Duration => "",
                _ => "<nil>",
            }),
            other => out.push_str(&other.to_string()),
        },
    }
}

fn int_or_string(out: &mut String, value: &Value) {
    let (kind, number, text) = match value {
        Value::String(text) => (1, 0, text.as_str()),
        other => (0, other.as_i64().unwrap_or(0), ""),
    };
    let _ = write!(out, "{{Type:(intstr.Type){kind} IntVal:(int32){number} StrVal:(string){text}}}");
}

/// A quantity as its parser leaves it: a scaled integer where that is exact, else an arbitrary decimal.
fn quantity(out: &mut String, text: &str) {
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    let fraction = fraction.trim_end_matches('0');
    let (format, exponent) = scale(suffix);
    let digits = format!("{whole}{fraction}");
    let binary = format == "BinarySI";
    let room = match binary {
        // 2^10 has about three decimal digits.
        true if fraction.is_empty() => 15 - whole.len() as i32 - exponent * 3 / 10 - 1,
        true => -1,
        false => 18 - digits.len() as i32,
    };
    let mantissa = if binary { 1i128 << exponent } else { 1 };
    let unscaled = digits.parse::<i128>().unwrap_or(0);
    let places = (if binary { 0 } else { exponent }) - fraction.len() as i32;
    let exact = unscaled.checked_mul(mantissa).and_then(|v| i64::try_from(sign * v).ok());
    match exact.filter(|_| room >= 0 && places >= -9) {
        Some(value) => {
            let kept = match binary {
                _ if text == "0" => true,
                true => exponent % 10 == 0 && unscaled & 7 != 0,
                false => places % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0'),
            };
            let text = if kept { text } else { "" };
            let _ = write!(
                out,
                "{{i:(resource.int64Amount){{value:(int64){value} scale:(resource.Scale){places}}} \
                 d:(resource.infDecAmount){{Dec:(*inf.Dec)<nil>}} s:(string){text} Format:(resource.Format){format}}}"
            );
        }
        None => {
            // Such decimals are rounded to nano-units.
            let nano = 10i128.checked_pow(u32::try_from(places + 9).unwrap_or(0));
            let scaled = unscaled.checked_mul(mantissa).zip(nano).and_then(|(v, nano)| v.checked_mul(nano));
            let words = scaled.unwrap_or(i128::MAX);
            let (low, high) = (words as u64, (words >> 64) as u64);
            let words = if high == 0 { low.to_string() } else { format!("{low} {high}") };
            let _ = write!(
                out,
                "{{i:(resource.int64Amount){{value:(int64)0 scale:(resource.Scale)0}} \
                 d:(resource.infDecAmount){{Dec:(*inf.Dec){{unscaled:(big.Int){{neg:(bool){} abs:(big.nat)[{words}]}} \
                 scale:(inf.Scale)9}}}} s:(string) Format:(resource.Format){format}}}",
                sign < 0,
            );
        }
    }
}

/// Format and exponent (of 10, or of 2 for binary suffixes) of a suffix.
fn scale(suffix: &str) -> (&'static str, i32) {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [(&str, i32); 10] =
        [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    if let Some(at) = BINARY.iter().position(|s| *s == suffix) {
        return ("BinarySI", 10 * (at as i32 + 1));
    }
    match DECIMAL.iter().find(|(s, _)| *s == suffix) {
        Some((_, exponent)) => ("DecimalSI", *exponent),
        None => ("DecimalExponent", suffix.get(1..).and_then(|e| e.parse().ok()).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: &str, value: Value, want: &str) {
        assert_eq!(dump(&format!("io.k8s.api.core.v1.{schema}"), &value), want);
    }

    #[test]
    fn everything_has_its_type() {
        check(
            "ContainerPort",
            json!({"containerPort": 80, "protocol": "TCP"}),
            "(v1.ContainerPort){Name:(string) HostPort:(int32)0 ContainerPort:(int32)80 Protocol:(v1.Protocol)TCP HostIP:(string)}",
        );
        check(
            "TCPSocketAction",
            json!({"port": "http"}),
            "(v1.TCPSocketAction){Port:(intstr.IntOrString){Type:(intstr.Type)1 IntVal:(int32)0 StrVal:(string)http} Host:(string)}",
        );
        check(
            "ResourceRequirements",
            json!({"limits": {"cpu": "100m"}}),
            "(v1.ResourceRequirements){Limits:(v1.ResourceList)map[cpu:{i:(resource.int64Amount){value:(int64)100 \
             scale:(resource.Scale)-3} d:(resource.infDecAmount){Dec:(*inf.Dec)<nil>} s:(string)100m \
             Format:(resource.Format)DecimalSI}] Requests:(v1.ResourceList)<nil> Claims:([]v1.ResourceClaim)<nil>}",
        );
    }
}
