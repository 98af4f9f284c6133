//! What masks and terminals are mounted from is the container's own.

use super::{TREASURE, directory, escaped, output, rewrite, volume};
use crate::bed::{Bed, shell};
use std::os::unix::fs::symlink;
use std::path::Path;

/// CVE-2025-31133, CVE-2025-62161: /dev/null, which hides files, is a link to a file of /proc.
pub async fn linked_null(bed: &mut Bed) {
    let dev = directory(bed, "dev");
    symlink(TREASURE, dev.join("null")).unwrap();
    let sandbox = bed.sandbox().await;
    for gone in [false, true] {
        if gone {
            std::fs::remove_file(dev.join("null")).unwrap();
        }
        let mut config = shell(&format!(
            "for f in /proc/timer_list /proc/kcore /proc/keys; do [ -e $f ] || continue; {}; echo; stat -c %F $f; done; head -c 9 /proc/timer_list",
            rewrite("$f")
        ));
        config.mounts = vec![volume("/dev", &dev)];
        let text = output(bed, &sandbox, config).await.unwrap();
        if text.contains("REWROTE") || text.contains("Timer") {
            escaped!("a masked file is not masked: {text}");
        }
        let here = ["timer_list", "kcore", "keys"].iter().filter(|file| Path::new("/proc").join(file).exists()).count();
        assert!(here > 0 && text.matches("character special file").count() == here, "{text}");
    }
}

/// CVE-2025-52565: the terminal that is shown as /dev/console is a link to a file of /proc.
pub async fn linked_terminal(bed: &mut Bed) {
    let pts = directory(bed, "pts");
    for number in 0..4 {
        symlink(TREASURE, pts.join(number.to_string())).unwrap();
    }
    symlink(TREASURE, pts.join("ptmx")).unwrap();
    let sandbox = bed.sandbox().await;
    let mut config = shell(&format!("[ -f /dev/console ] && {}; stat -c %F /dev/console", rewrite("/dev/console")));
    config.mounts = vec![volume("/dev/pts", &pts)];
    config.tty = true;
    let text = output(bed, &sandbox, config).await.unwrap();
    if text.contains("REWROTE") {
        escaped!("the console is a file of the node: {text}");
    }
    assert!(text.contains("character special file"), "{text}");
}
