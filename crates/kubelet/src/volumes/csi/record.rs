//! `vol_data.json`: what was set up, for whoever undoes it.

use serde_json::{Map, Value};
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "vol_data.json";
const MAX: u64 = 1 << 20;

/// A volume that was staged or published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Name of the volume of the specification.
    pub spec_name: String,
    /// The driver's name of the volume.
    pub handle: String,
    /// Driver.
    pub driver: String,
    /// Whether it lives as long as its pod.
    pub ephemeral: bool,
    /// Name of the attachment.
    pub attachment: String,
    /// Node.
    pub node: String,
}

impl Record {
    /// Writes the record into a directory.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let mode = if self.ephemeral { "Ephemeral" } else { "Persistent" };
        let fields = [
            ("specVolID", self.spec_name.as_str()),
            ("volumeHandle", &self.handle),
            ("driverName", &self.driver),
            ("nodeName", &self.node),
            ("attachmentID", &self.attachment),
            ("volumeLifecycleMode", mode),
        ];
        let map: Map<String, Value> = fields.map(|(k, v)| (k.to_owned(), Value::from(v))).into_iter().collect();
        let temporary = dir.join(format!("{FILE}.tmp"));
        std::fs::write(&temporary, Value::Object(map).to_string())?;
        std::fs::rename(temporary, dir.join(FILE))
    }

    /// Reads the record of a directory; `None` where there is none.
    pub fn load(dir: &Path) -> io::Result<Option<Self>> {
        let path = dir.join(FILE);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(meta) if meta.len() > MAX => return Err(io::Error::other(format!("{} is too large", path.display()))),
            Ok(_) => {}
        }
        let value: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Ok(Some(Self {
            spec_name: text("specVolID"),
            handle: text("volumeHandle"),
            driver: text("driverName"),
            ephemeral: text("volumeLifecycleMode") == "Ephemeral",
            attachment: text("attachmentID"),
            node: text("nodeName"),
        }))
    }

    /// Removes the record and then its directory, if that is empty.
    pub fn remove(dir: &Path) -> io::Result<()> {
        for result in [std::fs::remove_file(dir.join(FILE)), std::fs::remove_dir(dir)] {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Directories of all records below a directory of such (`…/<name>/vol_data.json`).
pub fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.join(FILE).exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let inner = dir.path().join("v");
        std::fs::create_dir(&inner).expect("mkdir");
        let text = |t: &str| t.to_owned();
        let record = Record {
            spec_name: text("pv"),
            handle: text("h"),
            driver: text("d"),
            ephemeral: true,
            attachment: text("a"),
            node: text("n"),
        };
        record.save(&inner).expect("save");
        assert_eq!(directories(dir.path()), vec![inner.clone()]);
        assert_eq!(Record::load(&inner).expect("load"), Some(record));
        Record::remove(&inner).expect("remove");
        assert!(!inner.exists());
        assert_eq!(Record::load(&inner).expect("load"), None);
    }
}
