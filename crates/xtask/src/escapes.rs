//! `cargo xtask escapes`: published escapes, against this tree and against copies of it without their guards.
//!
//! A weakening is `crates/runtime/tests/weak/NAME.patch`: its text says what it takes away, and its line `Case:`
//! which attack must win without that. The copy is made below the target directory; nothing of it is ever released.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What an attack that won says.
const WON: &str = "ESCAPED: ";
/// Longest run of one attack, seconds.
const LIMIT: &str = "180";

/// Runs published escapes against this tree, where they must fail, and against weakened copies, where they must win.
#[derive(clap::Args)]
pub struct Escapes {
    /// Weakenings by name; all without any
    names: Vec<String>,
}

/// A guard to take away.
struct Weakening {
    name: String,
    patch: PathBuf,
    case: String,
}

impl Escapes {
    /// Prints a line per weakening; fails when an attack went otherwise than it must.
    pub fn run(self) -> Result<()> {
        let all = weakenings()?;
        let chosen: Vec<_> = all.iter().filter(|w| self.names.is_empty() || self.names.contains(&w.name)).collect();
        ensure!(!chosen.is_empty(), "no such weakening");
        let ours = build(super::root(), &target())?;
        let copy = target().join("escapes");
        let mut wrong = Vec::new();
        println!("{:<20} {:<45} {:<9} weakened", "weakening", "attack", "ours");
        for weak in chosen {
            let held = attack(&ours, &weak.case)?;
            let won = weak.build(&copy).and_then(|binary| attack(&binary, &weak.case))?;
            println!("{:<20} {:<45} {:<9} {}", weak.name, weak.case, held.short(), won.text());
            if !matches!((&held, &won), (Outcome::Held, Outcome::Won(_))) {
                wrong.push(weak.name.clone());
            }
        }
        ensure!(wrong.is_empty(), "not as it must be: {}", wrong.join(", "));
        Ok(())
    }
}

impl Weakening {
    /// The attacks, built from a copy of this tree without the guard.
    fn build(&self, copy: &Path) -> Result<PathBuf> {
        fs::create_dir_all(copy)?;
        for name in ["Cargo.toml", "Cargo.lock", "crates"] {
            mirror(&super::root().join(name), &copy.join(name))?;
        }
        self.apply(copy, &["--no-backup-if-mismatch"])?;
        // Cargo names what it builds by the path within the workspace, which is the same in the copy: were the target
        // directory the same too, either would take the other's for its own.
        build(copy, &copy.join("target")).with_context(|| format!("build with {}", self.name))
    }

    fn apply(&self, tree: &Path, options: &[&str]) -> Result<()> {
        let mut command = Command::new("patch");
        command.args(["--strip=1", "--fuzz=0", "--silent"]).args(options).current_dir(tree);
        let done = command.stdin(fs::File::open(&self.patch)?).status()?;
        ensure!(done.success(), "{} does not apply any more", self.patch.display());
        Ok(())
    }
}

/// How an attack went.
enum Outcome {
    Held,
    Won(String),
    Broken(String),
}

impl Outcome {
    fn short(&self) -> &str {
        match self {
            Self::Held => "held",
            Self::Won(_) => "ESCAPED",
            Self::Broken(_) => "broken",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Held => "held, though its guard is gone".into(),
            Self::Won(how) => format!("escaped: {how}"),
            Self::Broken(why) => format!("broken: {why}"),
        }
    }
}

fn weakenings() -> Result<Vec<Weakening>> {
    let dir = super::root().join("crates/runtime/tests/weak");
    let paths: BTreeSet<PathBuf> = fs::read_dir(&dir)?.flatten().map(|entry| entry.path()).collect();
    paths.into_iter().map(|patch| {
        let text = fs::read_to_string(&patch)?;
        let case = case(&text).with_context(|| format!("{} names no case", patch.display()))?;
        Ok(Weakening { name: patch.file_stem().unwrap_or_default().to_string_lossy().into_owned(), case, patch })
    }).collect()
}

fn case(patch: &str) -> Option<String> {
    patch.lines().find_map(|line| line.strip_prefix("Case: ")).map(str::to_owned)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| super::root().join("target"), PathBuf::from)
}

/// Builds the tests of the runtime and returns their binary.
fn build(tree: &Path, target: &Path) -> Result<PathBuf> {
    let args = ["test", "--no-run", "--quiet", "--package", "runtime", "--test", "root_runtime", "--message-format", "json-render-diagnostics"];
    let output = super::test::cargo_command().args(args).current_dir(tree).env("CARGO_TARGET_DIR", target).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the build failed");
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let parsed = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let binary = parsed.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    binary.context("cargo named no binary")
}

fn attack(binary: &Path, case: &str) -> Result<Outcome> {
    let output = Command::new("timeout").args(["--kill-after=5", LIMIT]).arg(binary).arg(case).output()?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Ok(outcome(&text, case, output.status.success()))
}

fn outcome(text: &str, case: &str, passed: bool) -> Outcome {
    if let Some((_, how)) = text.split_once(WON) {
        return Outcome::Won(how.lines().next().unwrap_or_default().to_owned());
    }
    match passed && text.contains(case) {
        true => Outcome::Held,
        false => Outcome::Broken(text.lines().map(str::trim).collect::<Vec<_>>().join(" | ")),
    }
}

/// Makes `to` the same as `from`. A file that is the same already is not touched, so that cargo need not build it.
fn mirror(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        let bytes = fs::read(from)?;
        if fs::read(to).ok().as_ref() != Some(&bytes) {
            fs::write(to, bytes)?;
        }
        return Ok(());
    }
    fs::create_dir_all(to)?;
    let names = |dir: &Path| -> Result<BTreeSet<OsString>> { Ok(fs::read_dir(dir)?.flatten().map(|entry| entry.file_name()).collect()) };
    let (wanted, present) = (names(from)?, names(to)?);
    for gone in present.difference(&wanted).map(|name| to.join(name)) {
        if gone.is_dir() { fs::remove_dir_all(gone)? } else { fs::remove_file(gone)? }
    }
    for name in &wanted {
        let path = from.join(name);
        if path.is_symlink() {
            bail!("{} is a link", path.display());
        }
        mirror(&path, &to.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes() {
        for (text, passed, expect) in [("ok   a::b (1s)", true, "held"), ("x ESCAPED: y\nz", false, "ESCAPED"), ("FAIL a::b", false, "broken"), ("", true, "broken")] {
            assert_eq!(outcome(text, "a::b", passed).short(), expect, "{text}");
        }
        assert_eq!(case("Takes it away.\nCase: a::b\n\n--- a/f\n").as_deref(), Some("a::b"));
    }

    #[test]
    fn every_weakening_names_its_case_and_applies() {
        let all = weakenings().unwrap();
        assert!(all.len() >= 17);
        for weak in all {
            weak.apply(crate::root(), &["--dry-run"]).unwrap();
        }
    }

    #[test]
    fn copies_follow() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a")).unwrap();
        fs::create_dir_all(to.join("gone")).unwrap();
        fs::write(from.join("a/f"), "1").unwrap();
        mirror(&from, &to).unwrap();
        assert!(fs::read_to_string(to.join("a/f")).unwrap() == "1" && !to.join("gone").exists());
    }
}
