//! The server's own keys: a file that only its owner can read, a key per line, the newest first.
//!
//! `sagong encryption rotate` adds a key. The server then writes everything anew when it starts; older keys are
//! kept, as backups of the store need them.

use super::provider::{Key, random};
use super::{Error, Provider};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

const HEAD: &str = "# Keys that seal secrets in the store, the newest first. Without them the secrets are lost.\n";

/// Reads the keys; makes the file with a first one when it is missing.
pub fn load_or_create(path: &Path) -> Result<Provider, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map(Provider::Local).map_err(|e| Error::Config(format!("{}: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let keys = vec![new_key(&[])?];
            write(path, &keys)?;
            Ok(Provider::Local(keys))
        }
        Err(e) => Err(Error::Config(format!("read {}: {e}", path.display()))),
    }
}

/// Adds a key that seals from the next start of the server on; returns its name.
pub fn rotate(path: &Path) -> Result<String, Error> {
    let Provider::Local(mut keys) = load_or_create(path)? else { return Err(Error::NoMatch) };
    let key = new_key(&keys)?;
    let name = key.name.clone();
    keys.insert(0, key);
    write(path, &keys)?;
    Ok(name)
}

fn new_key(others: &[Key]) -> Result<Key, Error> {
    let newest = others.iter().filter_map(|key| key.name.strip_prefix("key")?.parse::<u64>().ok()).max().unwrap_or(0);
    Ok(Key::new(&format!("key{}", newest + 1), random::<32>()?.to_vec()))
}

fn write(path: &Path, keys: &[Key]) -> Result<(), Error> {
    let lines: String = keys.iter().map(|key| format!("{} {}\n", key.name, STANDARD.encode(key.secret()))).collect();
    pki::write_private(path, format!("{HEAD}{lines}").as_bytes())
        .map_err(|e| Error::Config(format!("write {}: {e}", path.display())))
}

fn parse(text: &str) -> Result<Vec<Key>, Error> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut keys = Vec::new();
    for line in lines {
        let key =
            line.split_once(' ').and_then(|(name, secret)| Some(Key::new(name, STANDARD.decode(secret.trim()).ok()?)));
        let key = key.filter(|key| key.secret().len() == 32 && !key.name.contains(':'));
        keys.push(key.ok_or_else(|| Error::Config("a line must be a name and 32 bytes in base64".into()))?);
    }
    if keys.is_empty() {
        Err(Error::Config("there is no key in it; restore it from a backup".into()))
    } else {
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_made_kept_and_added() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("encryption.keys");
        let first = load_or_create(&path).expect("made");
        assert_eq!(load_or_create(&path).expect("read"), first);
        let mode = std::fs::metadata(&path).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(rotate(&path).expect("rotated"), "key2");
        let Provider::Local(keys) = load_or_create(&path).expect("read") else { panic!("own keys") };
        assert_eq!(keys.iter().map(|k| k.name.as_str()).collect::<Vec<_>>(), ["key2", "key1"]);
        std::fs::write(&path, "key1 x").expect("write");
        assert!(load_or_create(&path).is_err(), "a damaged file is not replaced");
    }
}
