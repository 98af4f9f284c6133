//! Huge pages.

use super::{Resources, write, write_if_present};
use crate::error::Result;
use std::path::Path;

pub(super) fn v1(dir: &Path, r: &Resources) -> Result<()> {
    r.hugepages.iter().try_for_each(|(size, bytes)| write(dir, &format!("hugetlb.{size}.limit_in_bytes"), bytes))
}

pub(super) fn v2(dir: &Path, r: &Resources) -> Result<()> {
    r.hugepages.iter().try_for_each(|(size, bytes)| write_if_present(dir, &format!("hugetlb.{size}.max"), bytes))
}
