//! Pulls from Debian's `docker-registry` into a store (needs root to unpack; installs the registry if need be).

mod bed;

use bed::{Kind, Registry, Wants, free_port, push_image, push_manifest};
use cri::{AuthConfig, ImageService};
use images::{Options, PullEvent, Store};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

struct Bed {
    dir: tempfile::TempDir,
    store: Arc<Store>,
}

fn bed() -> Bed {
    assert!(rustix::process::geteuid().is_root(), "these tests need root");
    let dir = tempfile::tempdir().unwrap();
    let certs_dir = dir.path().join("certs.d");
    let store = Store::open_with(dir.path().join("store"), Options { certs_dir }).unwrap();
    Bed { dir, store }
}

impl Bed {
    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn hosts(&self, domain: &str, text: &str) {
        let dir = self.path().join("certs.d").join(domain);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("hosts.toml"), text).unwrap();
    }

    async fn fails(&self, image: &str, auth: Option<AuthConfig>) -> String {
        let error = self.store.pull_image(image, auth).await.unwrap_err();
        assert!(matches!(error, cri::Error::Image { reason: "ErrImagePull", .. }), "{error:?}");
        assert_eq!(left(self.path()), 0, "a failed pull leaves nothing");
        error.to_string()
    }

    fn name_in(&self, image: &str) -> String {
        let info = self.store.image(image).unwrap();
        std::fs::read_to_string(info.layers[1].join("etc/name")).unwrap()
    }
}

/// Files of unfinished work.
fn left(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("store/tmp")).unwrap().count()
}

fn user(password: &str) -> Option<AuthConfig> {
    Some(AuthConfig { username: "user".into(), password: password.into(), ..AuthConfig::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn by_tag_and_by_digest() {
    let bed = bed();
    let registry = Registry::start(bed.path(), Kind::Plain, free_port());
    let port = registry.port;
    let manifest = push_image(port, "a/b", "1", bed::host_architecture(), 1 << 20);
    let image = format!("localhost:{port}/a/b");
    let events = Mutex::new(Vec::new());
    let id = bed.store.pull(&format!("{image}:1"), None, &|event| events.lock().unwrap().push(event)).await.unwrap();
    let status = bed.store.image_status(&id).await.unwrap().unwrap();
    assert_eq!(status.repo_tags, [format!("{image}:1")]);
    assert_eq!(status.repo_digests, [format!("{image}@{manifest}")]);
    assert_eq!(status.uid, Some(7));
    assert!(status.size > 1 << 20);
    assert_eq!(bed.name_in(&format!("{image}@{manifest}")), "a/b:1 ".to_owned() + bed::host_architecture());
    let events = events.into_inner().unwrap();
    assert_eq!(events.first(), Some(&PullEvent::Resolved { digest: manifest.clone() }));
    assert_eq!(events.last(), Some(&PullEvent::Unpacking));
    let whole = events.iter().filter(|e| matches!(e, PullEvent::Layer { done, total, .. } if done == total)).count();
    assert_eq!(whole, 2, "{events:?}");
    // Again: nothing is fetched that is there.
    let fetched = AtomicBool::new(false);
    let note = |event| {
        if matches!(event, PullEvent::Layer { .. }) {
            fetched.store(true, Ordering::Relaxed);
        }
    };
    let again = bed.store.pull(&format!("{image}:1"), None, &note).await.unwrap();
    assert!(again == id && !fetched.load(Ordering::Relaxed));
    bed.store.remove(&id).unwrap();
    assert_eq!(bed.store.pull_image(&format!("{image}@{manifest}"), None).await.unwrap(), id);
    let status = bed.store.image_status(&id).await.unwrap().unwrap();
    assert!(status.repo_tags.is_empty() && status.repo_digests == [format!("{image}@{manifest}")], "{status:?}");
    // A tag that moved takes its name along.
    bed.store.pull_image(&format!("{image}:1"), None).await.unwrap();
    push_image(port, "a/b", "1", bed::host_architecture(), 2 << 20);
    let moved = bed.store.pull_image(&format!("{image}:1"), None).await.unwrap();
    assert_ne!(moved, id);
    assert_eq!(bed.store.image(&format!("{image}:1")).unwrap().id, moved);
    assert!(bed.store.image_status(&id).await.unwrap().unwrap().repo_tags.is_empty());
    let message = bed.fails(&format!("{image}:no"), None).await;
    let name = format!("localhost:{port}/a/b:no");
    assert_eq!(
        message,
        format!("failed to pull and unpack image {name:?}: failed to resolve reference {name:?}: {name}: not found")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_this_platform() {
    let bed = bed();
    let registry = Registry::start(bed.path(), Kind::Plain, free_port());
    let port = registry.port;
    let entry = |digest: &str, architecture: &str| {
        let file = bed::blob_file(bed.path(), digest);
        let size = std::fs::metadata(file).unwrap().len();
        serde_json::json!({"mediaType": bed::MANIFEST, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": architecture}})
    };
    let ours = push_image(port, "m", "ours", bed::host_architecture(), 1 << 10);
    let other = push_image(port, "m", "other", "s390x", 1 << 10);
    let index = |entries: &[serde_json::Value]| serde_json::json!({"schemaVersion": 2, "mediaType": bed::INDEX, "manifests": entries});
    let both = push_manifest(port, "m", "1", &index(&[entry(&other, "s390x"), entry(&ours, bed::host_architecture())]));
    push_manifest(port, "m", "2", &index(&[entry(&other, "s390x")]));
    let image = format!("localhost:{port}/m");
    let id = bed.store.pull_image(&format!("{image}:1"), None).await.unwrap();
    assert_eq!(bed.name_in(&format!("{image}:1")), "m:ours ".to_owned() + bed::host_architecture());
    let status = bed.store.image_status(&id).await.unwrap().unwrap();
    assert_eq!(status.repo_digests, [format!("{image}@{both}")]);
    let message = bed.fails(&format!("{image}:2"), None).await;
    assert!(message.contains("no match for platform in manifest: not found") && message.contains("s390x"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_wants_a_known_authority() {
    let bed = bed();
    let plain = Registry::start(bed.path(), Kind::Plain, free_port());
    push_image(plain.port, "t", "1", bed::host_architecture(), 1 << 10);
    let registry = Registry::start(bed.path(), Kind::Tls, free_port());
    let domain = format!("localhost:{}", registry.port);
    let image = format!("{domain}/t:1");
    bed.hosts(&domain, &format!("server = \"https://{domain}\"\n"));
    let message = bed.fails(&image, None).await;
    assert!(message.contains("UnknownIssuer"), "{message}");
    bed.hosts(&domain, &format!("server = \"https://{domain}\"\nskip_verify = true\n"));
    let id = bed.store.pull_image(&image, None).await.unwrap();
    bed.store.remove(&id).unwrap();
    bed.hosts(&domain, &format!("server = \"https://{domain}\"\nca = {:?}\n", bed.path().join("ca.crt")));
    assert_eq!(bed.store.pull_image(&image, None).await.unwrap(), id);
    bed.store.remove(&id).unwrap();
    // Docker's way: a certificate beside no hosts.toml.
    let dir = bed.path().join("certs.d").join(&domain);
    std::fs::remove_file(dir.join("hosts.toml")).unwrap();
    std::fs::copy(bed.path().join("ca.crt"), dir.join("ca.crt")).unwrap();
    assert_eq!(bed.store.pull_image(&image, None).await.unwrap(), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_credentials() {
    let bed = bed();
    let plain = Registry::start(bed.path(), Kind::Plain, free_port());
    push_image(plain.port, "p", "1", bed::host_architecture(), 1 << 10);
    let registry = Registry::start(bed.path(), Kind::Basic, free_port());
    let image = format!("localhost:{}/p:1", registry.port);
    let denied = "pull access denied, repository does not exist or may require authorization: ";
    let prefix = format!("failed to pull and unpack image {image:?}: failed to resolve reference {image:?}: {denied}");
    let none = bed.fails(&image, None).await;
    assert_eq!(none, format!("{prefix}authorization failed: no basic auth credentials"));
    let wrong = bed.fails(&image, user("wrong")).await;
    assert!(wrong.starts_with(&prefix) && wrong.contains("401 Unauthorized") && !wrong.contains("wrong"), "{wrong}");
    bed.store.pull_image(&image, user("secret")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn goes_on_after_broken_connections() {
    let bed = bed();
    let registry = Registry::start(bed.path(), Kind::Plain, free_port());
    push_image(registry.port, "c", "1", bed::host_architecture(), 16 << 20);
    let port = bed::relay(registry.port, 3, 3 << 20);
    bed.store.pull_image(&format!("localhost:{port}/c:1"), None).await.unwrap();
    let partial = registry.log.lock().unwrap().matches("http.response.status=206").count();
    assert_eq!(partial, 3, "every break is followed by a range\n{}", registry.log.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_registry() {
    let bed = bed();
    let registry = Registry::start(bed.path(), Kind::Plain, free_port());
    let port = registry.port;
    push_image(port, "k", "1", bed::host_architecture(), 64 << 20);
    let image = format!("localhost:{port}/k:1");
    let running = Mutex::new(Some(registry));
    // Killed for good as soon as bytes of the big layer arrive.
    let kill = |event| {
        if matches!(event, PullEvent::Layer { total, done, .. } if total > 32 << 20 && done > 1 << 20) {
            drop(running.lock().unwrap().take());
        }
    };
    let error = bed.store.pull(&image, None, &kill).await.unwrap_err().chain();
    assert!(running.lock().unwrap().is_none() && error.contains("failed to do request: Get"), "{error}");
    assert_eq!(left(bed.path()), 0);
    assert!(bed.store.image(&image).is_err());
    // Killed and started again: the same pull gets through.
    *running.lock().unwrap() = Some(Registry::start(bed.path(), Kind::Plain, port));
    let killed = AtomicBool::new(false);
    let restart = |event| {
        let big = matches!(event, PullEvent::Layer { total, done, .. } if total > 32 << 20 && done > 1 << 20);
        if big && !killed.swap(true, Ordering::Relaxed) {
            let mut registry = running.lock().unwrap();
            drop(registry.take());
            *registry = Some(Registry::start(bed.path(), Kind::Plain, port));
        }
    };
    bed.store.pull(&image, None, &restart).await.unwrap();
    assert!(killed.load(Ordering::Relaxed));
    let log = running.lock().unwrap().as_ref().unwrap().log.clone();
    assert!(log.lock().unwrap().contains("http.response.status=206"), "the pull goes on where it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors() {
    let bed = bed();
    let registry = Registry::start(bed.path(), Kind::Plain, free_port());
    let port = registry.port;
    let manifest = push_image(port, "library/x", "1", bed::host_architecture(), 1 << 10);
    // The first host is down, the second one serves; the registry itself is not asked.
    let down = free_port();
    bed.hosts(
        "docker.io",
        &format!(
            "server = \"http://127.0.0.1:{down}\"\n[host.\"http://127.0.0.1:{down}\"]\n[host.\"http://127.0.0.1:{port}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        ),
    );
    let id = bed.store.pull_image("x:1", None).await.unwrap();
    let status = bed.store.image_status("docker.io/library/x:1").await.unwrap().unwrap();
    assert_eq!((status.id, status.repo_digests), (id, vec![format!("docker.io/library/x@{manifest}")]));
    assert!(registry.log.lock().unwrap().contains("ns=docker.io"));
    let message = bed.fails("x:2", None).await;
    assert!(message.ends_with("docker.io/library/x:2: not found"), "{message}");
    // A mirror without `resolve` is not asked what a tag means.
    bed.hosts(
        "q.io",
        &format!(
            "server = \"http://127.0.0.1:{down}\"\n[host.\"http://127.0.0.1:{port}\"]\ncapabilities = [\"pull\"]\n"
        ),
    );
    let message = bed.fails("q.io/library/x:1", None).await;
    assert!(message.contains("failed to do request: Head") && message.contains("refused"), "{message}");
    bed.store.pull_image(&format!("q.io/library/x@{manifest}"), None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_bytes_are_refused() {
    let bed = bed();
    let registry = Registry::start(bed.path(), Kind::Plain, free_port());
    let manifest = push_image(registry.port, "e", "1", bed::host_architecture(), 1 << 20);
    let text = std::fs::read(bed::blob_file(bed.path(), &manifest)).unwrap();
    let parsed: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let file = bed::blob_file(bed.path(), parsed["layers"][1]["digest"].as_str().unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let message = bed.fails(&format!("localhost:{}/e:1", registry.port), None).await;
    assert!(message.contains("unexpected commit digest"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bearer_tokens() {
    let bed = bed();
    let registry = Registry::start(bed.path(), Kind::Plain, free_port());
    push_image(registry.port, "t", "1", bed::host_architecture(), 1 << 10);
    let open = format!("localhost:{}/t:1", bed::gate(registry.port, Wants::Nothing));
    bed.store.pull_image(&open, None).await.unwrap();
    // dXNlcjpzZWNyZXQ= is user:secret.
    let closed = format!("localhost:{}/t:1", bed::gate(registry.port, Wants::Basic("dXNlcjpzZWNyZXQ=")));
    bed.store.pull_image(&closed, user("secret")).await.unwrap();
    let anonymous = bed.fails(&closed, None).await;
    assert!(anonymous.contains("authorization: failed to authorize: failed to fetch anonymous token: "), "{anonymous}");
    let wrong = bed.fails(&closed, user("wrong")).await;
    assert!(
        wrong.contains("failed to fetch oauth token: ") && wrong.ends_with("401 Unauthorized: unauthorized: no"),
        "{wrong}"
    );
    let given = |token: &str| Some(AuthConfig { registry_token: token.into(), ..AuthConfig::default() });
    bed.store.pull_image(&closed, given("good")).await.unwrap();
    let scope = bed.fails(&closed, given("bad")).await;
    assert!(scope.ends_with("authorization: server message: insufficient_scope: authorization failed"), "{scope}");
    let refresh = format!("localhost:{}/t:1", bed::gate(registry.port, Wants::Refresh("r1")));
    let identity = Some(AuthConfig { identity_token: "r1".into(), ..AuthConfig::default() });
    bed.store.pull_image(&refresh, identity).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_pull_leaves_nothing() {
    let bed = bed();
    let registry = Registry::start(bed.path(), Kind::Plain, free_port());
    push_image(registry.port, "d", "1", bed::host_architecture(), 64 << 20);
    let image = format!("localhost:{}/d:1", registry.port);
    let begun = tokio::sync::Notify::new();
    let note = |event| {
        if matches!(event, PullEvent::Layer { .. }) {
            begun.notify_one();
        }
    };
    tokio::select! {
        biased;
        () = begun.notified() => {}
        done = bed.store.pull(&image, None, &note) => panic!("{done:?}"),
    }
    assert_eq!(left(bed.path()), 0);
    assert!(bed.store.image(&image).is_err());
    let (one, two) = tokio::join!(bed.store.pull(&image, None, &|_| ()), bed.store.pull(&image, None, &|_| ()));
    assert_eq!(one.unwrap(), two.unwrap());
}
