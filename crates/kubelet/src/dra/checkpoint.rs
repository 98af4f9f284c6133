//! What was prepared, on disk.

use super::Claims;
use std::io;
use std::path::Path;

const FILE: &str = "dra_manager_state";

/// Writes all claims, at once or not at all.
pub fn write(dir: &Path, claims: &Claims) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let temporary = dir.join(format!("{FILE}.tmp"));
    std::fs::write(&temporary, serde_json::to_vec(claims)?)?;
    std::fs::rename(temporary, dir.join(FILE))
}

/// Reads them; nothing can be undone for a file that cannot be read, so that is said loudly.
pub fn read(dir: &Path) -> Claims {
    let path = dir.join(FILE);
    let Ok(text) = std::fs::read(&path) else { return Claims::new() };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::error!(%error, path = %path.display(), "cannot read what DRA drivers have prepared");
        Claims::new()
    })
}
