//! User namespace mappings.

use crate::error::{Context, Result};
use serde::{Deserialize, Serialize};

/// Ranges `(id in the container, id on the host, how many)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// Users.
    pub uids: Vec<(u32, u32, u32)>,
    /// Groups.
    pub gids: Vec<(u32, u32, u32)>,
}

impl IdMap {
    /// Writes the mappings of a process that has just entered a new user namespace.
    pub fn write(&self, pid: i32) -> Result<()> {
        for (file, ranges) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            let path = format!("/proc/{pid}/{file}");
            std::fs::write(&path, lines(ranges)).context(|| format!("write {path}"))?;
        }
        Ok(())
    }

    /// The host's ids of the container's root.
    pub fn root(&self) -> (u32, u32) {
        let of = |ranges: &[(u32, u32, u32)]| ranges.iter().find(|r| r.0 == 0).map_or(0, |r| r.1);
        (of(&self.uids), of(&self.gids))
    }
}

fn lines(ranges: &[(u32, u32, u32)]) -> String {
    ranges.iter().map(|(inside, outside, length)| format!("{inside} {outside} {length}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_lines() {
        let map = IdMap { uids: vec![(0, 65536, 65536)], gids: vec![(0, 131072, 65536)] };
        assert_eq!(map.root(), (65536, 131072));
        assert_eq!(lines(&map.uids), "0 65536 65536\n");
    }
}
