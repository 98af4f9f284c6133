//! The program of a clone in a root that is otherwise empty: itself, and the libraries it is linked with.

use cri::Mount;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the program and its libraries are in the container.
const PROGRAM: &str = "/sagong";
const LIBRARIES: &str = "/lib";

/// The mounts and the command, without arguments.
pub fn place(program: &Path) -> (Vec<Mount>, Vec<String>) {
    // This process is the same program: what is mapped here is what will be needed there.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let libraries = libraries(&maps);
    let mut mounts = vec![read_only(program, PROGRAM.into())];
    mounts.extend(libraries.iter().map(|(name, path)| read_only(path, format!("{LIBRARIES}/{name}"))));
    let loader = libraries.keys().find(|name| name.starts_with("ld-"));
    let command = match loader {
        // Asked for by its place, it finds the libraries without a cache or a directory of the architecture.
        Some(name) => vec![format!("{LIBRARIES}/{name}"), "--library-path".into(), LIBRARIES.into(), PROGRAM.into()],
        None => vec![PROGRAM.into()],
    };
    (mounts, command)
}

/// A file of the node, shown and not to be changed.
pub fn read_only(host: &Path, container_path: String) -> Mount {
    Mount { container_path, host_path: host.display().to_string(), readonly: true, ..Mount::default() }
}

/// Shared objects by file name, of a `/proc/PID/maps`.
fn libraries(maps: &str) -> BTreeMap<String, PathBuf> {
    let path = |line: &str| {
        let path = line.splitn(6, ' ').nth(5).map(str::trim).filter(|p| p.starts_with('/'))?;
        // An update of the node's libraries has put others in the place of those that run.
        Some(PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(path)))
    };
    let named = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        (name.ends_with(".so") || name.contains(".so.")).then_some((name, path))
    };
    maps.lines().filter_map(path).filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_objects_are_found() {
        let maps = "55d0-55d1 r-xp 00000000 fe:00 12   /usr/bin/sagong\n\
            7f00-7f01 r--p 00000000 fe:00 13                 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
            7f01-7f02 r-xp 00000000 fe:00 13                 /usr/lib/x86_64-linux-gnu/libc.so.6\n\
            7f03-7f04 r-xp 00000000 fe:00 14                 /usr/lib/ld-linux-x86-64.so.2 (deleted)\n\
            7f05-7f06 rw-p 00000000 00:00 0                  [heap]\n7f07-7f08 rw-p 0 00:00 0\n";
        let names: Vec<String> = libraries(maps).into_keys().collect();
        assert_eq!(names, ["ld-linux-x86-64.so.2", "libc.so.6"]);
    }
}
