//! Writing the working tree, after its size is known.

use crate::limits::Limits;
use crate::{Error, Result};
use gix::index::entry::Mode;
use gix::worktree::stack::state::attributes::Source;
use gix::{ObjectId, Repository};
use std::sync::atomic::AtomicBool;

/// Writes the files of a commit. Names that would lead out of the tree or into `.git` are refused by gix.
pub fn write(repository: &Repository, commit: ObjectId, limits: &Limits) -> Result<()> {
    let failed = |e: gix::Error| Error::checkout(&e);
    let root = repository.workdir().ok_or_else(|| Error::Checkout("the repository has no working tree".into()))?;
    let tree = repository.find_object(commit).and_then(|o| o.peel_to_tree()).map_err(failed)?.id;
    let mut index = repository.index_from_tree(&tree).map_err(failed)?;
    measure(repository, &index, limits)?;
    let mut options = repository.checkout_options(Source::IdMapping).map_err(failed)?;
    options.destination_is_initially_empty = true;
    // There are none in a configuration that is ours alone; this says so.
    options.filters.options_mut().drivers.clear();
    let objects = repository.objects.clone().into_arc().map_err(|e| Error::checkout(&e))?;
    let (files, bytes) = (gix::progress::Discard, gix::progress::Discard);
    let done = gix::worktree::state::checkout(
        &mut index,
        root,
        objects,
        &files,
        &bytes,
        &AtomicBool::new(false),
        options,
    )
    .map_err(failed)?;
    if let Some(collision) = done.collisions.first() {
        return Err(Error::Checkout(format!("two files are one: {}", collision.path)));
    }
    index.write(gix::index::write::Options::default()).map_err(failed)
}

/// Refuses a tree that is too large before a byte of it is written.
fn measure(repository: &Repository, index: &gix::index::File, limits: &Limits) -> Result<()> {
    if index.entries().len() > limits.files {
        return Err(Error::TooLarge(format!("it has more than {} files", limits.files)));
    }
    let mut bytes = 0u64;
    for entry in index.entries().iter().filter(|e| e.mode != Mode::COMMIT) {
        let header = repository.find_header(entry.id).map_err(|e| Error::checkout(&e))?;
        bytes = bytes.saturating_add(header.size());
        if bytes > limits.checked_out {
            return Err(Error::TooLarge(format!("its files have more than {} bytes", limits.checked_out)));
        }
    }
    Ok(())
}
