//! A command on a real terminal, typed at by a test. Uses `script(1)`, which every Debian has.

use anyhow::{Context, Result};
use std::io::Write;
use std::process::{Command, Stdio};

/// Runs a shell command line under a pty, types `input`, and gives what the terminal showed.
pub fn run(line: &str, kubeconfig: &std::path::Path, input: &str) -> Result<String> {
    let mut child = Command::new("script")
        .args(["-qec", line, "/dev/null"])
        .env("KUBECONFIG", kubeconfig)
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start script(1) (package bsdutils)")?;
    child.stdin.take().context("stdin")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
