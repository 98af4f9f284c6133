//! Files that change all at once: a timestamped directory behind the `..data` link.
//!
//! Layout of a volume: `..2026_01_02_15_04_05.123456789/…` holds the files, `..data` links to it, and each
//! first path component is a link through `..data`. An update writes a new directory, renames a new link
//! over `..data`, then removes what is stale; a reader never sees a mixture.

use rustix::fs::{Gid, chown};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";

/// One file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProjection {
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, where it is not root (tokens of pods that run as one user).
    pub user: Option<u32>,
}

/// Files by path relative to the volume.
pub type Payload = BTreeMap<String, FileProjection>;

/// Makes a volume hold exactly `payload`; does nothing when it already does. `group` owns the files of `fsGroup` pods.
pub fn write(target: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    payload.keys().try_for_each(|path| validate(path))?;
    let old = std::fs::read_link(target.join(DATA)).ok();
    if let Some(old) = &old
        && matches(&target.join(old), payload)?
    {
        link_visible(target, payload)?;
        return Ok(false);
    }
    let fresh = new_directory(target)?;
    let result = fill(&target.join(&fresh), payload, group).and_then(|()| publish(target, &fresh, payload));
    if let Err(error) = result {
        let _ = std::fs::remove_dir_all(target.join(&fresh));
        return Err(error);
    }
    remove_stale(target, payload)?;
    if let Some(old) = old.filter(|o| o.as_os_str() != fresh.as_str()) {
        std::fs::remove_dir_all(target.join(old))?;
    }
    Ok(true)
}

fn validate(path: &str) -> io::Result<()> {
    let invalid = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let components: Vec<Component<'_>> = Path::new(path).components().collect();
    let normal = components.iter().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    match components.first() {
        None => invalid(format!("invalid path: must not be empty: {path:?}")),
        Some(_) if !normal => invalid(format!("invalid path: must not be absolute or contain '..': {path}")),
        Some(Component::Normal(name)) if name.to_string_lossy().starts_with("..") => {
            invalid(format!("invalid path: must not start with '..': {path}"))
        }
        Some(_) if path.len() > 4096 => invalid("invalid path: must be less than or equal to 4096 characters".into()),
        Some(_) => Ok(()),
    }
}

/// Whether a directory holds the payload and nothing else.
fn matches(directory: &Path, payload: &Payload) -> io::Result<bool> {
    let mut seen = BTreeSet::new();
    walk(directory, directory, &mut seen)?;
    let wanted: BTreeSet<PathBuf> = payload.keys().map(|p| Path::new(p).components().collect()).collect();
    if seen != wanted {
        return Ok(false);
    }
    for (path, file) in payload {
        let full = directory.join(path);
        let mode = std::fs::metadata(&full)?.permissions().mode() & 0o7777;
        // fsGroup widens the mode after writing, so only the bits that were asked for must be there.
        if mode & file.mode != file.mode || std::fs::read(&full)? != file.data {
            return Ok(false);
        }
    }
    Ok(true)
}

fn walk(root: &Path, directory: &Path, seen: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(root, &path, seen)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            seen.insert(relative.to_owned());
        }
    }
    Ok(())
}

fn new_directory(target: &Path) -> io::Result<String> {
    loop {
        let now = jiff::Timestamp::now();
        let name = format!("..{}.{}", now.strftime("%Y_%m_%d_%H_%M_%S"), rand::random::<u32>());
        match std::fs::DirBuilder::new().mode(0o755).create(target.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Ok(()) => {
                // The umask may have narrowed the mode; users other than root must read the files.
                std::fs::set_permissions(target.join(&name), PermissionsExt::from_mode(0o755))?;
                return Ok(name);
            }
            Err(error) => return Err(error),
        }
    }
}

fn fill(directory: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    for (path, file) in payload {
        let full = directory.join(path);
        if let Some(parent) = full.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mut handle = std::fs::OpenOptions::new().write(true).create_new(true).mode(file.mode).open(&full)?;
        io::Write::write_all(&mut handle, &file.data)?;
        // Read permission of the group is what fsGroup is for.
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        handle.set_permissions(PermissionsExt::from_mode(mode))?;
        if file.user.is_some() || group.is_some() {
            let owner = file.user.map(rustix::fs::Uid::from_raw);
            chown(&full, owner, group.map(Gid::from_raw))?;
        }
    }
    if let Some(group) = group {
        super::ownership::set_directories(directory, group)?;
    }
    Ok(())
}

fn publish(target: &Path, fresh: &str, payload: &Payload) -> io::Result<()> {
    let tmp = target.join(DATA_TMP);
    match std::fs::remove_file(&tmp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(fresh, &tmp)?;
    std::fs::rename(&tmp, target.join(DATA))?;
    link_visible(target, payload)
}

fn first_components(payload: &Payload) -> BTreeSet<String> {
    let first = |path: &String| match Path::new(path).components().find(|c| matches!(c, Component::Normal(_))) {
        Some(Component::Normal(name)) => name.to_string_lossy().into_owned(),
        _ => path.clone(),
    };
    payload.keys().map(first).collect()
}

fn link_visible(target: &Path, payload: &Payload) -> io::Result<()> {
    for name in first_components(payload) {
        match symlink(Path::new(DATA).join(&name), target.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn remove_stale(target: &Path, payload: &Payload) -> io::Result<()> {
    let wanted = first_components(payload);
    for entry in std::fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(&name) && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| FileProjection { data: data.into(), mode: 0o644, user: None };
        files.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    #[test]
    fn updates_swap_the_data_link_and_drop_stale_files() {
        let dir = tempfile::tempdir().expect("tempdir");
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).ok();
        assert!(write(dir.path(), &payload(&[("a", "1"), ("d/b", "2")]), None).expect("write"));
        assert_eq!((read("a").as_deref(), read("d/b").as_deref()), (Some("1"), Some("2")));
        assert_eq!(std::fs::read_link(dir.path().join("a")).expect("link"), Path::new("..data/a"));
        let before = std::fs::read_link(dir.path().join("..data")).expect("link");
        assert!(!write(dir.path(), &payload(&[("a", "1"), ("d/b", "2")]), None).expect("same"), "nothing changed");
        assert!(write(dir.path(), &payload(&[("a", "3")]), None).expect("update"));
        assert_eq!((read("a").as_deref(), read("d/b")), (Some("3"), None));
        assert!(!dir.path().join(before).exists(), "the old directory is removed");
    }

    #[test]
    fn paths_stay_inside() {
        let dir = tempfile::tempdir().expect("tempdir");
        for bad in ["../a", "/a", "a/../../b", "..x", ""] {
            assert!(write(dir.path(), &payload(&[(bad, "")]), None).is_err(), "{bad}");
        }
    }
}
