//! What a container says when it ends: its message file, or the end of its log.

use crate::logs::reader;
use crate::state::label;
use cri::ContainerStatus;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const MAX_MESSAGE: u64 = 4096;
const MAX_LOG_BYTES: usize = 2048;
const MAX_LOG_LINES: usize = 80;

/// The message of a container that has ended, empty when it left none. `linked`: its log may be a link.
pub fn read(status: &ContainerStatus, linked: bool) -> String {
    let annotation = |name: &str| status.annotations.get(name).map(String::as_str).unwrap_or_default();
    let path = annotation(label::MESSAGE_PATH);
    let fall_back = annotation(label::MESSAGE_POLICY) == "FallbackToLogsOnError"
        && status.exit_code != 0
        && status.reason != "ContainerCannotRun";
    let mount = status.mounts.iter().find(|m| !path.is_empty() && m.container_path == path);
    let message = match mount.map(|m| tail(Path::new(&m.host_path), MAX_MESSAGE)) {
        Some(Ok(message)) => message,
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            return format!("Error on reading termination log {}: {error}", mount.map_or("", |m| &m.host_path));
        }
        _ => String::new(),
    };
    if message.is_empty() && fall_back {
        return reader::last_lines(Path::new(&status.log_path), MAX_LOG_LINES, MAX_LOG_BYTES, linked);
    }
    message
}

fn tail(path: &Path, most: u64) -> std::io::Result<String> {
    // The file was writable by the container: it may be a link to anything by now only inside its own mount,
    // but its size is not to be trusted.
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
