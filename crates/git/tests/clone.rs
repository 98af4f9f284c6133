//! Clones from git's own server (`git http-backend`), and from servers that mean harm.

mod server;

use git::limits::{LIMITS, Limits};
use git::{Request, clone};
use server::{Answer, Server, git_in};
use std::path::{Path, PathBuf};

/// A volume, and what is said when a clone into it ends.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.path(name)).ok()
    }

    fn clone(&self, repository: &str, revision: &str, directory: &str) -> Result<(), String> {
        self.clone_within(repository, revision, directory, &LIMITS)
    }

    fn clone_within(&self, repository: &str, revision: &str, directory: &str, limits: &Limits) -> Result<(), String> {
        let request =
            Request { repository: repository.into(), revision: revision.into(), directory: directory.into() };
        clone(&request, self.0.path(), Path::new("/nonexistent"), limits).map_err(|e| e.to_string())
    }
}

/// A repository with two branches, a tag, a link, a program, and what a malicious one would bring along.
fn sample(dir: &Path) -> String {
    git_in(dir, "init -q -b main");
    std::fs::write(dir.join("file"), "one\n").expect("write");
    std::fs::write(dir.join("run"), "#!/bin/sh\n").expect("write");
    std::fs::set_permissions(dir.join("run"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).expect("link");
    std::fs::write(dir.join(".gitattributes"), "file filter=evil\n").expect("write");
    std::fs::write(dir.join(".gitmodules"), "[submodule \"s\"]\npath = s\nurl = file:///etc\n").expect("write");
    git_in(dir, "add .");
    git_in(dir, "commit -q -m one");
    let first = git_in(dir, "rev-parse HEAD");
    git_in(dir, "tag -a -m v1 v1");
    std::fs::write(dir.join("file"), "two\n").expect("write");
    git_in(dir, "commit -q -a -m two");
    git_in(dir, "checkout -q -b side/branch");
    std::fs::write(dir.join("file"), "side\n").expect("write");
    git_in(dir, "commit -q -a -m side");
    git_in(dir, "checkout -q main");
    // What a server's hooks are is no business of a clone.
    std::fs::write(dir.join(".git/hooks/post-checkout"), "#!/bin/sh\ntouch /tmp/evil\n").expect("write");
    first.trim().into()
}

#[test]
fn revisions_and_directories() {
    let (repositories, server) = Server::start();
    let dir = repositories.path().join("sample");
    std::fs::create_dir(&dir).expect("mkdir");
    let first = sample(&dir);
    let url = server.url("/sample/.git");
    let check = |revision: &str, directory: &str, at: &str, file: &str, head: &str| {
        let volume = Volume::new();
        volume.clone(&url, revision, directory).expect("clone");
        let file_name = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
        assert_eq!(volume.read(&file_name("file")).as_deref(), Some(file), "{revision:?}");
        assert!(volume.read(&file_name(".git/HEAD")).expect("HEAD").starts_with(head), "{revision:?}");
        // Git itself finds nothing to be different.
        assert_eq!(git_in(&volume.path(at), "status --porcelain"), "", "{revision:?}");
        assert_eq!(git_in(&volume.path(at), "config remote.origin.url").trim(), url);
        let mode = std::os::unix::fs::PermissionsExt::mode(&volume.path(&file_name("run")).metadata().expect("run").permissions());
        assert_eq!(mode & 0o111, 0o111);
        let link = std::fs::read_link(volume.path(&file_name("link"))).expect("a link stays a link");
        assert_eq!(link, Path::new("/etc/passwd"));
    };
    check("", "", "sample", "two\n", "ref: refs/heads/main");
    check("", ".", "", "two\n", "ref: refs/heads/main");
    check("main", "a/b", "a/b", "two\n", "ref: refs/heads/main");
    check("side/branch", ".", "", "side\n", "ref: refs/heads/side/branch");
    check("v1", ".", "", "one\n", &first);
    check(&first, ".", "", "one\n", &first);
    check(&first[..10], ".", "", "one\n", &first);
    check("origin/side/branch~1", ".", "", "two\n", "");
    assert!(!Path::new("/tmp/evil").exists());
    let refused = |revision: &str, directory: &str| Volume::new().clone(&url, revision, directory).expect_err("refused");
    assert_eq!(refused("nothing", "."), "revision \"nothing\" is not in the repository");
    assert_eq!(refused("--upload-pack=touch /tmp/evil", "."), "revision \"--upload-pack=touch /tmp/evil\" is not in the repository");
    assert_eq!(refused("", "../out"), "directory \"../out\" is not below the volume");
    let error = Volume::new().clone(&server.url("/missing"), "", ".").expect_err("missing");
    assert!(error.contains("404"), "{error}");
}

#[test]
fn empty_repositories_are_empty() {
    let (repositories, server) = Server::start();
    let dir = repositories.path().join("empty");
    std::fs::create_dir(&dir).expect("mkdir");
    git_in(&dir, "init -q");
    let volume = Volume::new();
    volume.clone(&server.url("/empty/.git"), "", ".").expect("clone");
    assert!(volume.read(".git/HEAD").is_some());
}

#[test]
fn trees_that_lead_out_are_refused() {
    let (repositories, server) = Server::start();
    let dir = repositories.path().join("evil");
    std::fs::create_dir(&dir).expect("mkdir");
    git_in(&dir, "init -q -b main");
    std::fs::write(dir.join("payload"), "evil\n").expect("write");
    let blob = git_in(&dir, "hash-object -w payload").trim().to_owned();
    let check = |entries: &[(&str, &str, &str)]| {
        let tree = server::tree(&dir, entries);
        let commit = git_in(&dir, &format!("commit-tree -m evil {tree}"));
        git_in(&dir, &format!("update-ref refs/heads/main {}", commit.trim()));
        let volume = Volume::new();
        let outside = volume.path("outside");
        std::fs::create_dir(&outside).expect("mkdir");
        let result = volume.clone(&server.url("/evil/.git"), "", "in");
        assert!(result.is_err(), "{entries:?}");
        assert!(volume.read("outside/payload").is_none() && volume.read("payload").is_none(), "{entries:?}");
        assert!(volume.read("in/.git/hooks/post-checkout").is_none(), "{entries:?}");
    };
    let inner = server::tree(&dir, &[("100755", "post-checkout", &blob)]);
    let hooks = server::tree(&dir, &[("040000", "hooks", &inner)]);
    let link = server::object(&dir, "blob", b"../outside");
    let up = server::tree(&dir, &[("100644", "payload", &blob)]);
    check(&[("040000", ".git", &hooks)]);
    check(&[("040000", ".GIT", &hooks)]);
    check(&[("040000", "..", &up)]);
    check(&[("100644", "../payload", &blob)]);
    // A link and, below its name, a file.
    check(&[("120000", "a", &link), ("040000", "a", &up)]);
    check(&[("120000", ".git", &link)]);
}

#[test]
fn sizes_are_bounded() {
    let (repositories, server) = Server::start();
    let dir = repositories.path().join("large");
    std::fs::create_dir(&dir).expect("mkdir");
    git_in(&dir, "init -q -b main");
    std::fs::write(dir.join("zeros"), vec![0; 8 << 20]).expect("write");
    git_in(&dir, "add .");
    git_in(&dir, "commit -q -m large");
    let url = server.url("/large/.git");
    let check = |limits: Limits, expect: &str| {
        let volume = Volume::new();
        let error = volume.clone_within(&url, "", ".", &limits).expect_err("too large");
        assert!(error.contains(expect), "{error}");
        assert!(volume.read("zeros").is_none());
    };
    check(Limits { received: 2000, ..LIMITS }, "the repository is too large: the server sends too much");
    check(Limits { checked_out: 4 << 20, ..LIMITS }, "the repository is too large: its files have more than 4194304 bytes");
    check(Limits { files: 0, ..LIMITS }, "the repository is too large: it has more than 0 files");
    Volume::new().clone_within(&url, "", ".", &LIMITS).expect("fits");
}

#[test]
fn servers_lead_to_http_only() {
    let (repositories, git) = Server::start();
    let dir = repositories.path().join("sample");
    std::fs::create_dir(&dir).expect("mkdir");
    sample(&dir);
    let leads = |to: String| Server::answering(move |_| Answer::Redirect(to.clone()));
    let refs = "/info/refs?service=git-upload-pack";
    let server = leads(format!("{}{refs}", git.url("/sample/.git")));
    Volume::new().clone(&server.url("/x"), "", ".").expect("a redirect to another repository");
    for to in ["file:///etc/passwd", "ssh://h/x", "git://h/x", "http://127.0.0.1:1/elsewhere"] {
        let error = Volume::new().clone(&leads(to.into()).url("/x"), "", ".").expect_err("refused");
        assert!(error.contains("the server redirects to"), "{error}");
    }
    let around = Server::answering(|path| Answer::Redirect(path.into()));
    let error = Volume::new().clone(&around.url("/x"), "", ".").expect_err("refused");
    assert!(error.contains("more than 5 redirects"), "{error}");
}

#[test]
fn servers_that_lie_or_never_end() {
    let check = |answer: Answer, expect: &str| {
        let server = Server::answering(move |_| answer.clone());
        let error = Volume::new().clone_within(&server.url("/x"), "", ".", &Limits { received: 1 << 20, ..LIMITS });
        let error = error.expect_err("refused");
        assert!(error.contains(expect), "{error}");
    };
    check(Answer::Body("text/html", b"<html>".to_vec()), "smart");
    check(Answer::Endless("application/x-git-upload-pack-advertisement"), "the server sends too much");
    check(Answer::Body("application/x-git-upload-pack-advertisement", b"ffff".to_vec()), "larger than the maximum");
    check(Answer::Status(401), "401");
    check(Answer::Status(500), "500");
}
