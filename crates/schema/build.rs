//! Lays `data/*.txt` out as constant tables and packs the field descriptions of the
//! `k8s-openapi` dependency's source.

#[path = "build/descriptions.rs"]
mod descriptions;
#[path = "build/tables.rs"]
mod tables;

use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=data");
    println!("cargo::rerun-if-changed=build");
    let read = |name: &str| fs::read_to_string(Path::new("data").join(name)).expect("data file of this crate");
    let out = env::var("OUT_DIR").expect("set by cargo");
    let out = Path::new(&out);
    let schemas = tables::parse(&read("types.txt"));
    fs::write(out.join("types.rs"), tables::types(&schemas) + &tables::enums(&read("enums.txt")))
        .expect("OUT_DIR is writable");
    fs::write(out.join("resources.rs"), tables::resources(&read("resources.txt"))).expect("OUT_DIR is writable");
    let packed = descriptions::packed(&schemas);
    println!(
        "cargo::rustc-env=SCHEMA_FACTS_HASH={:016x}",
        hash(&[read("types.txt").as_bytes(), read("enums.txt").as_bytes(), read("resources.txt").as_bytes(), &packed])
    );
    fs::write(out.join("descriptions.bin"), packed).expect("OUT_DIR is writable");
}

/// FNV-1a: only names a state of the facts.
fn hash(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .copied()
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
