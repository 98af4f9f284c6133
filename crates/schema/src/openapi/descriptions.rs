//! The packed field descriptions, unpacked for the time of one answer; those of single fields are kept.

use crate::types::{Field, Schema};
use flate2::read::ZlibDecoder;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::{LazyLock, Mutex, PoisonError};

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.bin"));

/// Definitions whose lines follow those of the tables.
const SPECIALS: [&str; 7] = [
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
];

/// Descriptions asked for by schema and field. Names are constants of the program, so it stays small.
static KNOWN: LazyLock<Mutex<HashMap<(&str, &str), Option<String>>>> = LazyLock::new(Mutex::default);

/// The description of a schema's field; only the first question about a field reads the packed texts.
pub fn description(schema: &'static str, field: &'static str) -> Option<String> {
    // A panic while it was held leaves nothing half done: entries are inserted whole.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.entry((schema, field)).or_insert_with(|| read(Schema::find(schema)?.field(field)?.line())).clone()
}

/// One line of the packed texts, read as a stream; `None` when it is empty.
fn read(line: usize) -> Option<String> {
    let text = BufReader::new(ZlibDecoder::new(PACKED)).lines().nth(line)?.ok()?;
    (!text.is_empty()).then(|| text.replace('\u{1}', "\n"))
}

/// Descriptions by line; see `build/descriptions.rs`.
pub(super) struct Descriptions {
    text: String,
    /// Offset of each line.
    starts: Vec<u32>,
}

impl Descriptions {
    pub(super) fn unpack() -> Self {
        let mut text = String::new();
        // The blob is our own; should it ever not unpack, documents only lack their texts.
        if ZlibDecoder::new(PACKED).read_to_string(&mut text).is_err() {
            text.clear();
        }
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i as u32 + 1);
        let starts = std::iter::once(0).chain(ends).collect();
        Self { text, starts }
    }

    fn line(&self, line: usize) -> String {
        let (Some(from), Some(to)) = (self.starts.get(line), self.starts.get(line + 1)) else { return String::new() };
        self.text[*from as usize..*to as usize - 1].replace('\u{1}', "\n")
    }

    pub(super) fn of_schema(&self, schema: Schema) -> String {
        self.line(schema.line())
    }

    /// Of one of [`SPECIALS`].
    pub(super) fn of_special(&self, name: &str) -> String {
        let after = Schema::all().last().map_or(0, |s| s.line() + 1 + s.fields().count());
        SPECIALS.iter().position(|s| *s == name).map_or(String::new(), |i| self.line(after + i))
    }

    pub(super) fn of_field(&self, field: Field) -> String {
        self.line(field.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_described_as_in_the_whole() {
        let all = Descriptions::unpack();
        let check = |schema: &'static str, name: &'static str| {
            let field = Schema::find(schema).and_then(|s| s.field(name)).expect("a field");
            for _ in 0..2 {
                assert_eq!(description(schema, name), Some(all.of_field(field)), "{schema}.{name}");
            }
        };
        check("io.k8s.api.core.v1.PodSpec", "nodeName");
        check("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "creationTimestamp");
        check("io.k8s.api.storage.v1.CSIDriverSpec", "podInfoOnMount");
        assert_eq!(description("io.k8s.api.core.v1.PodSpec", "nodename"), None);
        assert_eq!(description("io.k8s.api.core.v1.None", "name"), None);
    }
}
