//! `sagong logs`

use crate::cli::Target;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

/// Prints the cluster's own log.
#[derive(clap::Args)]
pub struct Logs {
    #[command(flatten)]
    target: Target,
    /// Prints only so many of the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
}

impl Logs {
    /// Prints it.
    pub fn run(self) -> anyhow::Result<()> {
        let layout = self.target.layout()?;
        cluster::Spec::load(&layout)?;
        let mut file = File::open(layout.log())?;
        if let Some(lines) = self.tail {
            let start = last_lines(&mut file, lines)?;
            file.seek(SeekFrom::Start(start))?;
        }
        match std::io::copy(&mut file, &mut std::io::stdout().lock()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
        // A reader that has gone away is no error.
        let _ = std::io::stdout().flush();
        Ok(())
    }
}

/// Where the last `lines` lines begin.
fn last_lines(file: &mut File, lines: usize) -> std::io::Result<u64> {
    const BLOCK: u64 = 8192;
    let mut end = file.metadata()?.len();
    let mut left = lines + 1;
    let mut first = true;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        if std::mem::take(&mut first) && block.last() != Some(&b'\n') {
            left -= 1;
        }
        for at in (0..block.len()).rev().filter(|at| block[*at] == b'\n') {
            left = left.saturating_sub(1);
            if left == 0 {
                return Ok(start + at as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_are_found() {
        let path = std::env::temp_dir().join(format!("sagong-logs-{}", std::process::id()));
        for (text, lines, want) in [("a\nb\nc\n", 2, 2), ("a\nb\nc", 1, 4), ("a\n", 5, 0), ("", 1, 0)] {
            std::fs::write(&path, text).expect("write");
            let mut file = File::open(&path).expect("open");
            assert_eq!(last_lines(&mut file, lines).expect("seek"), want, "{text:?}");
        }
        std::fs::remove_file(path).expect("remove");
    }
}
