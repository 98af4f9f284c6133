//! Pulls that have begun (KEP-2535): known on disk before one begins, and forgotten after what it brought is written down.
//!
//! One that was cut off (the kubelet was killed, its pod is gone, its record could not be written) is left over: it may
//! have brought its image, or may still. It is settled when the images of the node are listed next, and before its name is
//! pulled anew, which could take the name from the image. Names are compared in full, with tag or digest.

use super::reference::qualified;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long a pull that was cut off may still bring its image.
const LATE: Duration = Duration::from_secs(3600);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    api_version: String,
    kind: String,
    image: String,
    /// Id of the image that had the name before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

/// The pulls of one name.
struct Pull {
    running: usize,
    /// One of them was cut off.
    left: bool,
    /// Id of the image that had the name before the first of them: none of them brought it.
    before: Option<String>,
    since: SystemTime,
}

/// The pulls of a node that have begun.
pub struct Intents {
    dir: PathBuf,
    pulls: Mutex<HashMap<String, Pull>>,
}

impl Intents {
    /// Reads what earlier kubelets left over.
    pub fn open(dir: PathBuf) -> Self {
        let mut pulls = HashMap::new();
        for file in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension().is_some_and(|e| e == "tmp") {
                // Of a write that was cut off, before its pull began.
                let _ = fs::remove_file(path);
                continue;
            }
            match read(&path, &dir) {
                Ok((name, pull)) => drop(pulls.insert(name, pull)),
                Err(error) => tracing::error!(%error, path = %path.display(), "cannot read the intent of a pull"),
            }
        }
        Self { dir, pulls: Mutex::new(pulls) }
    }

    /// Begins a pull of a name that an image had before, or none.
    pub fn begin(self: &Arc<Self>, image: &str, before: Option<String>) -> Intent {
        let name = qualified(image);
        let mut pulls = self.pulls.lock();
        let since = SystemTime::now();
        let pull = pulls.entry(name.clone()).or_insert(Pull { running: 0, left: false, before, since });
        pull.running += 1;
        Intent { intents: self.clone(), name, ended: false }
    }

    /// Whether an image with these names may have come by a pull that is not written down.
    pub fn may_have_brought<'a>(&self, id: &str, mut names: impl Iterator<Item = &'a str>) -> bool {
        let pulls = self.pulls.lock();
        let brought = |pull: &Pull| pull.before.as_deref() != Some(id);
        !pulls.is_empty() && names.any(|name| pulls.get(&qualified(name)).is_some_and(brought))
    }

    /// Whether a pull of a name was cut off and is not settled.
    pub fn is_left(&self, image: &str) -> bool {
        self.pulls.lock().get(&qualified(image)).is_some_and(|pull| pull.left)
    }

    /// Ids of the images that came by pulls that were cut off, with the names of these pulls; forgets those that will
    /// bring nothing.
    pub fn left(&self, present: &[cri::Image], now: SystemTime) -> Vec<(String, String)> {
        let named: HashMap<String, &str> = present
            .iter()
            .flat_map(|image| {
                image.repo_tags.iter().chain(&image.repo_digests).map(|n| (qualified(n), image.id.as_str()))
            })
            .collect();
        let ids: HashSet<&str> = present.iter().map(|image| image.id.as_str()).collect();
        let (mut brought, mut pulls) = (Vec::new(), self.pulls.lock());
        pulls.retain(|name, pull| {
            // One that was removed meanwhile may come again.
            pull.before.take_if(|id| !ids.contains(id.as_str()));
            let id = named.get(name).filter(|id| pull.before.as_deref() != Some(**id));
            if pull.running > 0 || !pull.left {
                return true;
            }
            if let Some(id) = id {
                brought.push(((*id).to_owned(), name.clone()));
                return true;
            }
            now.duration_since(pull.since).unwrap_or_default() < LATE || !self.forget(name)
        });
        brought
    }

    /// What a pull that was cut off brought is written down.
    pub fn settled(&self, name: &str) {
        let mut pulls = self.pulls.lock();
        if pulls.get(name).is_some_and(|pull| pull.running == 0) && self.forget(name) {
            pulls.remove(name);
        }
    }

    /// Removes the file of a pull, while the pulls are locked: a new one writes its own after that.
    fn forget(&self, name: &str) -> bool {
        match fs::remove_file(self.dir.join(super::pulls::file_name(name))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, image = name, "cannot remove the intent of a pull");
                false
            }
            _ => true,
        }
    }
}

/// A pull in progress; one that is dropped was cut off.
pub struct Intent {
    intents: Arc<Intents>,
    name: String,
    ended: bool,
}

impl Intent {
    /// Writes it to disk.
    pub fn write(&self) -> io::Result<()> {
        let file = File {
            api_version: super::pulls::API_VERSION.into(),
            kind: "ImagePullIntent".into(),
            image: self.name.clone(),
            before: self.intents.pulls.lock().get(&self.name).and_then(|pull| pull.before.clone()),
        };
        super::pulls::write(&self.intents.dir, &super::pulls::file_name(&self.name), &serde_json::to_vec(&file)?)
    }

    /// The pull has failed, or what it brought is written down.
    pub fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Intent {
    fn drop(&mut self) {
        let mut pulls = self.intents.pulls.lock();
        let Some(pull) = pulls.get_mut(&self.name) else { return };
        pull.running = pull.running.saturating_sub(1);
        if !self.ended {
            (pull.left, pull.since) = (true, SystemTime::now());
        }
        if pull.running == 0 && !pull.left && self.intents.forget(&self.name) {
            pulls.remove(&self.name);
        }
    }
}

/// The full name that an intent is for, and its pull; its file gets the name that we look for.
fn read(path: &Path, dir: &Path) -> io::Result<(String, Pull)> {
    let since = fs::metadata(path)?.modified()?;
    let file: File = serde_json::from_slice(&fs::read(path)?)?;
    let name = qualified(&file.image);
    let wanted = dir.join(super::pulls::file_name(&name));
    if wanted != path {
        fs::rename(path, wanted)?;
    }
    Ok((name, Pull { running: 0, left: true, before: file.before, since }))
}
