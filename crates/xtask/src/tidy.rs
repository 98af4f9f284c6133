//! `cargo xtask tidy`: the rules of the house that a compiler does not know.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 800;
/// Crates that may contain `unsafe`: they speak to the kernel.
const UNSAFE: [&str; 3] = ["oci", "net", "runtime"];
/// Components, which meet only at the API.
const COMPONENTS: [&str; 7] = ["apiserver", "controllers", "scheduler", "kubelet", "proxy", "dns", "cluster"];
/// What a crate that is no component may depend on inside the workspace; components: see [`allowed`].
const EDGES: [(&str, &[&str]); 17] = [
    ("api", &[]),
    ("schema", &[]),
    ("expression", &["api"]),
    ("git", &[]),
    ("kv", &[]),
    ("merge", &["schema"]),
    ("oci", &[]),
    ("images", &["cri"]),
    ("net", &[]),
    ("cri", &[]),
    ("pki", &[]),
    ("protos", &[]),
    ("streaming", &["cri"]),
    ("cri-socket", &["cri", "protos", "streaming"]),
    ("resources", &["api", "schema", "expression"]),
    ("informer", &["api"]),
    ("runtime", &["cri", "oci", "images", "net"]),
];
const COMPONENT_EDGES: [(&str, &[&str]); 7] = [
    ("apiserver", &["api", "schema", "resources", "kv", "merge", "pki", "expression", "streaming"]),
    ("controllers", &["api", "informer", "pki", "schema"]),
    ("scheduler", &["api", "informer", "expression"]),
    ("kubelet", &["api", "informer", "cri", "pki", "protos", "streaming"]),
    ("proxy", &["api", "informer", "net"]),
    ("dns", &["api", "informer", "net"]),
    ("cluster", &["net", "pki"]),
];

/// Prints every breach; fails when there is one.
pub fn run() -> Result<()> {
    let mut breaches = Vec::new();
    for krate in directories(&super::root().join("crates"))? {
        let name = krate.file_name().unwrap_or_default().to_string_lossy().into_owned();
        edges(&krate, &name, &mut breaches)?;
        for file in sources(&krate.join("src"))? {
            source(&file, &name, &mut breaches)?;
        }
    }
    breaches.iter().for_each(|breach| eprintln!("tidy: {breach}"));
    if breaches.is_empty() { Ok(()) } else { bail!("{} breaches of the rules in CONTRIBUTING.md", breaches.len()) }
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    EDGES.iter().chain(&COMPONENT_EDGES).find(|(krate, _)| *krate == name).map(|(_, edges)| *edges)
}

/// Forbidden dependencies between crates of the workspace; tests may use more.
fn edges(krate: &Path, name: &str, breaches: &mut Vec<String>) -> Result<()> {
    let Some(allowed) = allowed(name) else { return Ok(()) };
    let manifest = fs::read_to_string(krate.join("Cargo.toml")).with_context(|| format!("read the manifest of {name}"))?;
    let section = manifest.split("[dependencies]").nth(1).unwrap_or("").split("\n[").next().unwrap_or("");
    let internal = |d: &&str| EDGES.iter().any(|(k, _)| k == d) || COMPONENTS.contains(d) || ["sagong", "testing", "e2e"].contains(d);
    let dependencies = section.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).filter(internal);
    for dependency in dependencies.filter(|d| !allowed.contains(d)) {
        breaches.push(format!("crates/{name} must not depend on {dependency}"));
    }
    Ok(())
}

fn source(file: &Path, krate: &str, breaches: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(file)?;
    let shown = file.strip_prefix(super::root()).unwrap_or(file).display();
    let mut breach = |what: String| breaches.push(format!("{shown}: {what}"));
    if text.lines().count() > MAX_LINES {
        breach(format!("longer than {MAX_LINES} lines"));
    }
    if !text.starts_with("//!") {
        breach("does not open with a `//!` comment that says what it is for".into());
    }
    if !registered(file) {
        breach("is not part of its crate (no `mod` names it)".into());
    }
    if is_test(file) {
        return Ok(());
    }
    for (number, line) in text.lines().enumerate().take_while(|(_, line)| !line.contains("#[cfg(test)]")) {
        for what in forbidden(line, krate) {
            breach(format!("line {}: {what}", number + 1));
        }
    }
    Ok(())
}

fn is_test(file: &Path) -> bool {
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    name == "tests" || name.ends_with("_tests") || name == "suite" || file.components().any(|c| c.as_os_str() == "tests")
}

/// What a line outside tests must not contain.
fn forbidden(line: &str, krate: &str) -> Vec<&'static str> {
    let code = line.split("//").next().unwrap_or("");
    let mut out = Vec::new();
    if code.contains(".unwrap()") {
        out.push("`unwrap` outside tests: say why it holds with `expect`, or handle it");
    }
    if code.contains(concat!("uns", "afe ")) && !code.contains("forbid(") && !UNSAFE.contains(&krate) {
        out.push("unsafe code outside the crates that speak to the kernel");
    }
    if [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X ")].iter().any(|word| line.contains(word)) {
        out.push("an unfinished part");
    }
    out
}

/// Whether the file's parent module names it.
fn registered(file: &Path) -> bool {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let Some(dir) = file.parent() else { return true };
    let (name, above) = match stem.as_str() {
        "lib" | "main" => return true,
        "mod" => (dir.file_name().unwrap_or_default().to_string_lossy().into_owned(), dir.parent().unwrap_or(dir)),
        _ => (stem, dir),
    };
    if above.file_name().is_some_and(|n| n == "bin") {
        return true;
    }
    let named = ["lib.rs", "main.rs", "mod.rs"].map(|f| above.join(f)).into_iter().chain([above.with_extension("rs")]);
    // Tests beside a file are named by it, with a path.
    let tested = name.strip_suffix("_tests").map(|tested| above.join(format!("{tested}.rs")));
    named.chain(tested).filter_map(|p| fs::read_to_string(p).ok()).any(|text| text.lines().any(|line| declares(line, &name)))
}

fn declares(line: &str, name: &str) -> bool {
    let line = line.trim();
    line.strip_suffix(';').and_then(|l| l.rsplit_once("mod ")).is_some_and(|(_, n)| n == name) || line.contains(&format!("path = \"{name}.rs\""))
}

fn directories(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    all.sort();
    Ok(all)
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return Ok(out) };
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            out.extend(sources(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_judged() {
        assert_eq!(forbidden("let x = y.unwrap();", "api").len(), 1);
        assert_eq!(forbidden("// .unwrap() is not code", "api").len(), 0);
        assert_eq!(forbidden(concat!("uns", "afe { f() }"), "api").len(), 1);
        assert_eq!(forbidden(concat!("uns", "afe { f() }"), "oci").len(), 0);
        assert!(declares("pub mod foo;", "foo") && declares("mod foo;", "foo") && !declares("mod foo_bar;", "foo"));
    }
}
