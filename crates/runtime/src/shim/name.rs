//! What a shim is called among the node's processes.
//!
//! It is forked, not started, so its command line is the zygote's, which was made with room for a pod's name. The text
//! is written over the process's own arguments; `prctl(PR_SET_MM)` would need CAP_SYS_RESOURCE.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the argument that the zygote is given for it: a namespace, a pod's name, an id and what is between.
pub(crate) const ROOM: usize = 400;

/// Names this process `sagong shim <namespace>/<pod> <sandbox>`. Only people read it: a failure changes nothing.
pub(super) fn set(pod: &str, directory: &Path) {
    let _ = rustix::thread::set_name(c"sagong-shim");
    let sandbox = directory.file_name().unwrap_or_default().to_string_lossy();
    let _ = overwrite(&["sagong", "shim", pod, &sandbox]);
}

fn overwrite(words: &[&str]) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (start, end) = arguments(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let room = usize::try_from(end - start).map_err(io::Error::other)?;
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.write_all_at(&fit(words, room), start)
}

/// Addresses of the first and after the last byte of the arguments (`proc_pid_stat(5)`, fields 48 and 49).
fn arguments(stat: &str) -> Option<(u64, u64)> {
    // The name before may hold anything, closing brackets too. What follows it begins with field 3.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(48 - 3);
    let (start, end) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (0 < start && start < end).then_some((start, end))
}

/// The words in exactly so many bytes; the last is always 0, or the kernel would show the environment too.
fn fit(words: &[&str], room: usize) -> Vec<u8> {
    let mut bytes = words.join("\0").into_bytes();
    bytes.truncate(room.saturating_sub(1));
    bytes.resize(room, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_bytes() {
        let fields: Vec<String> = (4..=52).map(|n| (n * 10).to_string()).collect();
        let stat = format!("1 (a) b) S {}", fields.join(" "));
        assert_eq!(arguments(&stat), Some((480, 490)));
        assert_eq!(arguments("1 (a) S 1 2"), None);
        assert_eq!(arguments(&stat.replace("480", "0")), None);
        assert_eq!(fit(&["a", "bc"], 6), b"a\0bc\0\0");
        assert_eq!(fit(&["a", "bc"], 3), b"a\0\0");
        assert_eq!(fit(&["a"], 0), b"");
    }
}
