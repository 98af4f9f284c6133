//! Descriptions of schemas and fields, read from the source of the `k8s-openapi` dependency.
//!
//! One line per schema and per field, in the order of the tables, deflated. Without the source
//! (it is only looked for, never downloaded) every line is empty and `explain` has no texts.

use crate::tables::{Schema, full_name};
use flate2::{Compression, write::ZlibEncoder};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Definitions without a table of fields; `src/openapi/descriptions.rs` reads their lines in this order.
const SPECIALS: [&str; 7] = [
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
];

/// Definition name → (its description, normalized field name → description).
type Found = HashMap<String, (String, HashMap<String, String>)>;

pub fn packed(schemas: &[Schema]) -> Vec<u8> {
    let mut found = Found::new();
    match source() {
        Some(dir) => walk(&dir, &mut found),
        None => panic!("the source of k8s-openapi, from which field descriptions are taken, is neither in cargo's registry nor where `cargo metadata --offline` says; run `cargo fetch`"),
    }
    let mut lines = String::new();
    for schema in schemas {
        push(&mut lines, found.get(&schema.name).map_or("", |(own, _)| own));
        // Embedded structs are no definitions: their texts stand with those that embed them.
        let owners = || std::iter::once(&schema.name).chain(embedders(schema, schemas));
        for field in &schema.fields {
            let key = normalized(&field.name);
            let text = owners().find_map(|owner| found.get(owner)?.1.get(&key));
            push(&mut lines, text.map_or("", String::as_str));
        }
    }
    for special in SPECIALS {
        let text = found.get(special).map_or("", |(own, _)| own);
        push(&mut lines, &if special.ends_with(".Quantity") { with_fence(text) } else { text.to_owned() });
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(lines.as_bytes()).and_then(|()| encoder.finish()).expect("writing to memory")
}

/// Puts back the fence and tabs of the grammar of quantities, which rustdoc could not bear.
fn with_fence(text: &str) -> String {
    let text = text.replace("\n\n <quantity>", "\n\n``` <quantity>").replace("\n  (", "\n\t(");
    text.replace("\"E\" <signedNumber>\n", "\"E\" <signedNumber> ```\n")
}

/// Schemas that embed this one.
fn embedders<'a>(schema: &'a Schema, schemas: &'a [Schema]) -> impl Iterator<Item = &'a String> {
    let embeds = move |s: &&Schema| s.fields.iter().any(|f| f.name.is_empty() && full_name(&f.ty) == schema.name);
    schemas.iter().filter(embeds).map(|s| &s.name)
}

/// One description per line; line breaks inside become U+0001.
fn push(lines: &mut String, text: &str) {
    lines.push_str(&text.replace('\n', "\u{1}"));
    lines.push('\n');
}

/// Directory of the version of the dependency that is built.
fn source() -> Option<PathBuf> {
    downloaded().or_else(resolved)
}

/// Where cargo unpacks registries: known without asking cargo, which wants every dependency of the workspace
/// downloaded, those of tests too.
fn downloaded() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cargo")))?;
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let lock = manifest_dir.ancestors().find_map(|dir| fs::read_to_string(dir.join("Cargo.lock")).ok())?;
    let package = lock.split("[[package]]").find(|p| p.contains("name = \"k8s-openapi\""))?;
    let version = package.lines().find_map(|line| line.strip_prefix("version = "))?.trim_matches('"');
    let registries = fs::read_dir(home.join("registry/src")).ok()?.flatten();
    let mut found = registries.map(|r| r.path().join(format!("k8s-openapi-{version}/src/v1_36")));
    found.find(|dir| dir.is_dir())
}

/// Where cargo says it is, for vendored and replaced sources.
fn resolved() -> Option<PathBuf> {
    let output = Command::new(env::var("CARGO").ok()?)
        .args(["metadata", "--offline", "--format-version", "1", "--filter-platform"])
        .arg(env::var("TARGET").ok()?)
        .arg("--manifest-path")
        .arg(Path::new(&env::var("CARGO_MANIFEST_DIR").ok()?).join("Cargo.toml"))
        .output()
        .ok()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let package = metadata["packages"].as_array()?.iter().find(|p| p["name"] == "k8s-openapi")?;
    let dir = Path::new(package["manifest_path"].as_str()?).parent()?.join("src/v1_36");
    dir.is_dir().then_some(dir)
}

fn walk(dir: &Path, found: &mut Found) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            read(&text, found);
        }
    }
}

/// Reads the struct of one generated file: its `///` lines and those of its public fields.
fn read(text: &str, found: &mut Found) {
    let Some(name) = text.lines().find_map(|l| l.strip_prefix("// Generated from definition ")) else { return };
    let (mut doc, mut own, mut fields, mut inside) = (Vec::new(), None, HashMap::new(), false);
    for line in text.lines() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("///") {
            doc.push(comment.strip_prefix(' ').unwrap_or(comment));
        } else if line.starts_with("pub struct ") || line.starts_with("pub enum ") {
            own.get_or_insert(unescaped(&doc.join("\n")));
            doc.clear();
            inside = true;
        } else if inside && line == "}" {
            break;
        } else if let Some((field, _)) = line.strip_prefix("pub ").and_then(|l| l.split_once(':')) {
            fields.insert(normalized(if field == "ref_path" { "ref" } else { field }), unescaped(&doc.join("\n")));
            doc.clear();
        } else if !line.starts_with("#[") {
            doc.clear();
        }
    }
    found.insert(name.trim().to_owned(), (own.unwrap_or_default(), fields));
}

/// Takes back the escapes that keep rustdoc from reading Markdown.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next_if(|next| "<>[]*_`\\".contains(*next)) } else { None };
        out.push(escaped.unwrap_or(c));
    }
    out
}

/// Makes `image_pull_policy` and `imagePullPolicy` equal.
fn normalized(name: &str) -> String {
    name.trim_start_matches("r#").chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}
