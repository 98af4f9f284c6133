//! Fetching: a new repository with all branches and tags of its origin, and the commit that was asked for.

use crate::http::Client;
use crate::{Error, Result};
use gix::refs::transaction::{Change, LogChange, PreviousValue, RefEdit, RefLog};
use gix::refs::{FullName, Target};
use gix::remote::Direction;
use gix::remote::fetch::Tags;
use gix::{ObjectId, Repository, Url};
use gix_transport::Protocol;
use gix_transport::client::blocking_io::http::Transport;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;

const BRANCHES: &str = "+refs/heads/*:refs/remotes/origin/*";

/// What the server calls its HEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Name of its branch, `refs/heads/main`; `None`: detached.
    pub branch: Option<String>,
    /// Its commit; `None`: the repository is empty.
    pub commit: Option<ObjectId>,
}

/// Makes a repository in an empty directory and fetches everything into it.
pub fn fetch(url: Url, client: Client, target: &Path) -> Result<(Repository, Head)> {
    let mut repository = init(target)?;
    let transport = Transport::new_http(client, url.clone(), Protocol::V2, false);
    let received = receive(&mut repository, url, transport)?;
    Ok((repository, received))
}

/// A repository that reads no configuration but its own.
fn init(target: &Path) -> Result<Repository> {
    let capabilities =
        gix::fs::Capabilities { precompose_unicode: false, ignore_case: false, executable_bit: true, symlink: true };
    let create = gix::create::Options { fs_capabilities: Some(capabilities), ..Default::default() };
    let open = gix::open::Options::isolated();
    let made = gix::ThreadSafeRepository::init_opts(target, gix::create::Kind::WithWorktree, create, open);
    let mut repository = made.map_err(|e| Error::checkout(&e))?.to_thread_local();
    repository.committer_or_set_generic_fallback().map_err(|e| Error::checkout(&e))?;
    Ok(repository)
}

fn receive(repository: &mut Repository, url: Url, transport: Transport<Client>) -> Result<Head> {
    let failed = |e: gix::Error| Error::fetch(&e);
    let mut remote = repository
        .remote_at_without_url_rewrite(url)
        .and_then(|remote| remote.with_refspecs([BRANCHES], Direction::Fetch))
        .map_err(failed)?
        .with_fetch_tags(Tags::All);
    let mut section = gix::config::File::default();
    remote.save_as_to("origin", &mut section).map_err(failed)?;
    let head = gix::refspec::parse("HEAD".into(), gix::refspec::parse::Operation::Fetch).map_err(failed)?.to_owned();
    let options = gix::remote::ref_map::Options { extra_refspecs: vec![head], ..Default::default() };
    let outcome = remote
        .to_connection_with_transport(transport)
        .with_credentials(|_| Ok(None))
        .prepare_fetch(gix::progress::Discard, options)
        .map_err(failed)?
        .with_write_packed_refs_only(true)
        .receive(gix::progress::Discard, &AtomicBool::new(false))
        .map_err(failed)?;
    configure(repository, &section.to_bstring()).map_err(|e| Error::checkout(&e))?;
    Ok(outcome.ref_map.remote_refs.iter().find_map(head_of).unwrap_or(Head { branch: None, commit: None }))
}

fn head_of(reference: &gix::protocol::handshake::Ref) -> Option<Head> {
    use gix::protocol::handshake::Ref;
    let (name, target, object) = match reference {
        Ref::Symbolic { full_ref_name, target, object, .. } => (full_ref_name, Some(target), Some(*object)),
        Ref::Direct { full_ref_name, object } => (full_ref_name, None, Some(*object)),
        Ref::Unborn { full_ref_name, target } => (full_ref_name, Some(target), None),
        Ref::Peeled { .. } => return None,
    };
    let branch = target.map(ToString::to_string).filter(|t| t.starts_with("refs/heads/"));
    (name == "HEAD").then_some(Head { branch, commit: object })
}

/// Adds to the configuration of the repository.
fn configure(repository: &Repository, text: &[u8]) -> std::io::Result<()> {
    std::fs::OpenOptions::new().append(true).open(repository.git_dir().join("config"))?.write_all(text)
}

/// Finds the commit of a revision and makes it HEAD, as `git clone` and `git checkout REVISION` do: a branch of the
/// server becomes a local branch, everything else a detached HEAD. `None`: the repository is empty.
pub fn select(repository: &Repository, head: Head, revision: &str) -> Result<Option<ObjectId>> {
    if revision.is_empty() {
        let Some(commit) = head.commit else { return Ok(None) };
        let commit = peel(repository, commit)?;
        return point(repository, head.branch.as_deref(), commit).map(|()| Some(commit));
    }
    let unknown = || Error::Revision(revision.into());
    let own = format!("refs/heads/{revision}");
    let tracked = format!("refs/remotes/origin/{revision}");
    let is_head = head.branch.as_deref() == Some(own.as_str());
    let parsed = if is_head { None } else { repository.rev_parse_single(revision).ok() };
    let (branch, object) = match parsed {
        Some(id) => (None, id.detach()),
        None => {
            let found = repository.try_find_reference(tracked.as_str()).ok().flatten().ok_or_else(unknown)?;
            (Some(own), found.into_fully_peeled_id().map_err(|_| unknown())?.detach())
        }
    };
    let commit = peel(repository, object).map_err(|_| unknown())?;
    point(repository, branch.as_deref(), commit).map(|()| Some(commit))
}

fn peel(repository: &Repository, object: ObjectId) -> Result<ObjectId> {
    let found = repository.find_object(object).map_err(|e| Error::fetch(&e))?;
    Ok(found.peel_to_commit().map_err(|e| Error::fetch(&e))?.id)
}

/// Lets HEAD be a branch at a commit, or the commit itself.
fn point(repository: &Repository, branch: Option<&str>, commit: ObjectId) -> Result<()> {
    let failed = |e: gix::Error| Error::checkout(&e);
    let name = |text: &str| {
        FullName::try_from(text).map_err(|_| Error::Fetch(format!("the server names a branch {text:?}, which is none")))
    };
    let update = |name: FullName, new: Target| {
        let log = LogChange { mode: RefLog::AndReference, force_create_reflog: false, message: "clone".into() };
        RefEdit { change: Change::Update { log, expected: PreviousValue::Any, new }, name, deref: false }
    };
    let head = match branch {
        None => Target::Object(commit),
        Some(branch) => {
            let branch_name = name(branch)?;
            repository.edit_reference(update(branch_name.clone(), Target::Object(commit))).map_err(failed)?;
            configure(repository, &tracking(branch)).map_err(|e| Error::checkout(&e))?;
            Target::Symbolic(branch_name)
        }
    };
    repository.edit_reference(update(name("HEAD")?, head)).map_err(failed).map(drop)
}

/// The section that says what a branch follows.
fn tracking(branch: &str) -> Vec<u8> {
    let short = branch.trim_start_matches("refs/heads/").replace('\\', "\\\\").replace('"', "\\\"");
    format!("[branch \"{short}\"]\n\tremote = origin\n\tmerge = {branch}\n").into_bytes()
}
