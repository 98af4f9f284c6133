//! The packed field descriptions, unpacked for the time of one answer.

use crate::types::{Field, Schema};
use flate2::read::ZlibDecoder;
use std::io::Read;

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
