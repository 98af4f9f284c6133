//! Contexts in the user's kubeconfig: added, selected and removed without touching anything else.
//!
//! Which file is changed follows `kubectl config`: of the files `$KUBECONFIG` lists, the one that
//! already has the entry, else the first that exists, else the last of the list.

use crate::{Doing, Error, Result};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

/// The files a user's configuration is spread over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files(Vec<PathBuf>);

impl Files {
    /// One file.
    pub fn one(path: &Path) -> Self {
        Self(vec![path.to_owned()])
    }

    /// The files of `$KUBECONFIG` (`list`), or `~/.kube/config` when that is unset or empty.
    pub fn of_user(list: Option<&str>, home: &Path) -> Self {
        let files: Vec<PathBuf> = list.into_iter().flat_map(|l| l.split(':')).filter(|f| !f.is_empty()).map(PathBuf::from).collect();
        if files.is_empty() { Self(vec![home.join(".kube/config")]) } else { Self(files) }
    }

    fn target(&self, name: &str) -> Result<&Path> {
        for file in &self.0 {
            if read(file)?.is_some_and(|config| has(&config, "contexts", name)) {
                return Ok(file);
            }
        }
        let existing = self.0.iter().find(|file| file.exists());
        Ok(existing.or(self.0.last()).map_or(Path::new(""), PathBuf::as_path))
    }
}

/// Adds (or replaces) context `name` with the cluster and user of `admin`, and selects it. Gives the file changed.
pub fn add(files: &Files, name: &str, admin: &Value) -> Result<PathBuf> {
    let target = files.target(name)?.to_owned();
    edit(&target, |config| {
        for list in LISTS {
            if let Some(mut entry) = admin.get(list).and_then(|l| l.get(0)).cloned() {
                entry["name"] = name.into();
                if list == "contexts" {
                    entry["context"] = merged_context(config, name);
                }
                put(config, list, name, Some(entry));
            }
        }
        config["current-context"] = name.into();
    })?;
    // A file named before the target wins with its own selection: select there too.
    for file in files.0.iter().take_while(|file| **file != target) {
        if read(file)?.is_some_and(|config| !selected(&config).is_empty()) {
            edit(file, |config| config["current-context"] = name.into())?;
        }
    }
    Ok(target)
}

/// Removes context `name` with its cluster and user, and its selection.
pub fn remove(files: &Files, name: &str) -> Result<()> {
    for file in &files.0 {
        let Some(config) = read(file)? else { continue };
        let ours = LISTS.iter().any(|list| has(&config, list, name)) || selected(&config) == name;
        if ours {
            edit(file, |config| {
                LISTS.iter().for_each(|list| put(config, list, name, None));
                if selected(config) == name {
                    config["current-context"] = "".into();
                }
            })?;
        }
    }
    Ok(())
}

/// Keeps what the user set in the context before (its default namespace).
fn merged_context(config: &Value, name: &str) -> Value {
    let entries = config.get("contexts").and_then(Value::as_array);
    let before = entries.into_iter().flatten().find(|e| e["name"] == name).and_then(|e| e.get("context")).cloned();
    let mut context = before.filter(Value::is_object).unwrap_or_else(|| json!({}));
    context["cluster"] = name.into();
    context["user"] = name.into();
    context
}

fn selected(config: &Value) -> &str {
    config.get("current-context").and_then(Value::as_str).unwrap_or("")
}

fn has(config: &Value, list: &str, name: &str) -> bool {
    config.get(list).and_then(Value::as_array).is_some_and(|l| l.iter().any(|e| e["name"] == name))
}

/// Replaces the entry `name` of a list in place, appends it, or removes it.
fn put(config: &mut Value, list: &str, name: &str, entry: Option<Value>) {
    if !config[list].is_array() {
        config[list] = json!([]);
    }
    let Some(entries) = config[list].as_array_mut() else { return };
    let at = entries.iter().position(|e| e["name"] == name);
    match (at, entry) {
        (Some(at), Some(entry)) => entries[at] = entry,
        (None, Some(entry)) => entries.push(entry),
        (_, None) => entries.retain(|e| e["name"] != name),
    }
}

/// Reads a kubeconfig; `None` when the file does not exist or is empty.
pub fn read(path: &Path) -> Result<Option<Value>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(|| format!("read {}", path.display()))?,
    };
    if text.trim().is_empty() {
        return Ok(None);
    }
    let damaged = |reason: String| Error::Damaged { path: path.display().to_string(), reason, fix: "mend it, or give another file with --kubeconfig" };
    let value: Value = serde_saphyr::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if value.is_object() { Ok(Some(value)) } else { Err(damaged("it is not a map".into())) }
}

/// A kubeconfig as text.
pub fn to_yaml(config: &Value) -> Result<String> {
    serde_saphyr::to_string(config).map_err(std::io::Error::other).doing(|| "write YAML".into())
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) -> Result<()> {
    // Through a link to the file it names, so that the link stays.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).doing(|| format!("make {}", dir.display()))?;
    }
    let _lock = lock(&path)?;
    let before = read(&path)?;
    let mut config = before.clone().unwrap_or_else(|| Value::Object(Map::from_iter([("apiVersion".into(), "v1".into()), ("kind".into(), "Config".into())])));
    change(&mut config);
    if before.as_ref() == Some(&config) {
        return Ok(());
    }
    let mode = fs::metadata(&path).map_or(0o600, |m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777);
    crate::spec::write_atomic(&path, to_yaml(&config)?.as_bytes(), mode)
}

struct LockFile(PathBuf);

impl Drop for LockFile {
    fn drop(&mut self) {
        // Ours; nobody else removes it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Takes kubectl's own lock on a kubeconfig: a file `<name>.lock` that must not exist.
fn lock(path: &Path) -> Result<LockFile> {
    let lock = path.with_added_extension("lock");
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match fs::OpenOptions::new().write(true).create_new(true).open(&lock) {
            Ok(_) => return Ok(LockFile(lock)),
            // The lock is a bare file by kubectl's convention: there is no event for its end.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error).doing(|| format!("lock {} (if nothing else is changing it, remove {})", path.display(), lock.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> Value {
        json!({"clusters": [{"name": "x", "cluster": {"server": "https://1"}}], "users": [{"name": "x", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]})
    }

    #[test]
    fn merges_and_removes_without_clobbering() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("deep/config");
        fs::create_dir_all(dir.path().join("deep")).expect("dir");
        let mine = "apiVersion: v1\nkind: Config\ncurrent-context: old\ncontexts:\n- name: old\n  context: {cluster: c, user: u}\nextra: {keep: 1}\n";
        fs::write(&path, mine).expect("write");
        let files = Files::one(&path);
        add(&files, "dev", &admin()).expect("add");
        add(&files, "dev", &admin()).expect("add again");
        let config = read(&path).expect("read").expect("some");
        assert_eq!((config["current-context"].as_str(), config["contexts"].as_array().map(Vec::len)), (Some("dev"), Some(2)));
        assert_eq!((&config["extra"]["keep"], &config["users"][0]["name"]), (&json!(1), &json!("dev")));
        remove(&files, "dev").expect("remove");
        let config = read(&path).expect("read").expect("some");
        assert_eq!((has(&config, "contexts", "old"), has(&config, "contexts", "dev"), selected(&config)), (true, false, ""));
        assert!(!path.with_added_extension("lock").exists());
    }

    #[test]
    fn the_users_files_are_those_kubectl_takes() {
        let dir = tempfile::tempdir().expect("dir");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let list = format!("{}:{}", a.display(), b.display());
        let files = Files::of_user(Some(&list), Path::new("/root"));
        assert_eq!(files.target("x").expect("target"), b);
        fs::write(&a, "current-context: q\n").expect("write");
        assert_eq!(files.target("x").expect("target"), a);
        fs::write(&b, "contexts: [{name: x, context: {namespace: team}}]\n").expect("write");
        assert_eq!(add(&files, "x", &admin()).expect("add"), b);
        let read_at = |p: &Path| read(p).expect("read").expect("some");
        assert_eq!((selected(&read_at(&a)), &read_at(&b)["contexts"][0]["context"]["namespace"]), ("x", &json!("team")));
        assert_eq!(Files::of_user(None, Path::new("/h")), Files::one(Path::new("/h/.kube/config")));
        fs::write(&a, "[1]").expect("write");
        assert!(add(&Files::one(&a), "x", &admin()).is_err());
    }
}
