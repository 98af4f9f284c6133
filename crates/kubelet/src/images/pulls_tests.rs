//! Who may use what was pulled, and what of pulls that were cut off.

use super::*;

fn secret(uid: &str, content: &str) -> Entry {
    let holder =
        Holder { uid: uid.into(), name: "s".into(), namespace: "ns".into(), credential_hash: hash(content.as_bytes()) };
    Entry { source: Source::Secret(holder), ..Entry::default() }
}

fn image(id: &str, tags: &[&str], digests: &[&str]) -> Image {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Image { id: id.into(), repo_tags: own(tags), repo_digests: own(digests), ..Image::default() }
}

fn one() -> Image {
    image("sha256:1", &["r.io/a:1"], &["r.io/a@sha256:d"])
}

fn admitted(records: &PullRecords, name: &str, entry: &Entry) -> bool {
    match records.access(name, &one()) {
        Access::All => true,
        Access::Holders(granted) => granted.admits(entry),
    }
}

fn open(dir: &tempfile::TempDir) -> Arc<PullRecords> {
    PullRecords::open(dir.path(), &KubeletConfiguration::default())
}

fn files(dir: &tempfile::TempDir, below: &str) -> usize {
    fs::read_dir(dir.path().join("image_manager").join(below)).into_iter().flatten().count()
}

fn later() -> SystemTime {
    SystemTime::now() + std::time::Duration::from_secs(2)
}

#[tokio::test]
async fn images_are_for_those_who_hold_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir);
    let (own, other) = (secret("1", "a"), secret("2", "b"));
    assert_eq!(records.access("r.io/a:1", &one()), Access::All, "it was loaded");
    let intent = records.intend("r.io/a:1", None).await.unwrap();
    assert!(!admitted(&records, "r.io/a:1", &own), "a pull that is not over");
    records.pulled(intent, "r.io/a:1", "sha256:1", Some(&own)).await;
    for (image, entry, expect) in [
        ("r.io/a:1", &own, true),
        ("r.io/a:2", &own, true),
        ("r.io/b:1", &own, false),
        ("r.io/a:1", &other, false),
        ("r.io/a:1", &secret("3", "a"), true),
        ("r.io/a:1", &secret("1", "changed"), true),
        ("r.io/a:1", &Entry::default(), false),
    ] {
        assert_eq!(admitted(&records, image, entry), expect, "{image} {entry:?}");
    }
    assert_eq!(files(&dir, "pulling"), 0);
    let again = open(&dir);
    assert!(admitted(&again, "r.io/a:1", &own) && !admitted(&again, "r.io/a:1", &other), "after a restart");
    let intent = again.intend("r.io/a:1", None).await.unwrap();
    again.pulled(intent, "r.io/a:1", "sha256:1", None).await;
    assert_eq!(again.access("r.io/a:1", &one()), Access::All, "it needed no credentials");
    again.prune(&[], SystemTime::UNIX_EPOCH).await;
    assert_eq!(files(&dir, "pulled"), 1, "pulled since");
    again.prune(&[], later()).await;
    assert_eq!(files(&dir, "pulled"), 0);
}

#[tokio::test]
async fn a_pull_of_what_is_known_is_of_now() {
    let dir = tempfile::tempdir().unwrap();
    let (records, own) = (open(&dir), secret("1", "a"));
    let file = dir.path().join("image_manager/pulled").join(file_name("sha256:1"));
    for _ in 0..2 {
        let intent = records.intend("r.io/a:1", None).await.unwrap();
        records.pulled(intent, "r.io/a:1", "sha256:1", Some(&own)).await;
        let age = fs::metadata(&file).and_then(|m| m.modified()).unwrap();
        assert!(age > SystemTime::UNIX_EPOCH, "the image was removed and pulled again");
        fs::File::options().write(true).open(&file).and_then(|f| f.set_modified(SystemTime::UNIX_EPOCH)).unwrap();
    }
    let Access::Holders(granted) = records.access("r.io/a:1", &one()) else { panic!("for all") };
    records.used("r.io/a:1", "sha256:1", &granted, &own).await;
    assert_eq!(fs::metadata(&file).and_then(|m| m.modified()).unwrap(), SystemTime::UNIX_EPOCH, "nothing is new");
}

#[tokio::test]
async fn a_pull_that_was_cut_off_asks_for_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["r.io/a:1", "r.io/a", "r.io/a@sha256:d", "sha256:1"];
    let other = image("sha256:2", &["r.io/other:1"], &[]);
    // Killed: nothing of it ran to its end.
    std::mem::forget(open(&dir).intend("r.io/a:1", None).await.unwrap());
    let records = open(&dir);
    for name in names {
        assert!(!admitted(&records, name, &secret("1", "a")), "{name}");
    }
    assert_eq!(records.access("r.io/other:1", &other), Access::All);
    records.prune(&[other.clone(), one()], later()).await;
    assert_eq!((files(&dir, "pulling"), files(&dir, "pulled"), records.is_left("r.io/a:1")), (0, 1, false));
    let moved = image("sha256:1", &[], &["r.io/a@sha256:d"]);
    assert_ne!(records.access("r.io/a@sha256:d", &moved), Access::All, "also when another has its tag");
    assert_eq!(records.access("r.io/other:1", &other), Access::All);
}

#[tokio::test]
async fn a_pull_that_is_given_up_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir);
    drop(records.intend("r.io/a", None).await.unwrap());
    assert!(records.is_left("r.io/a:latest"));
    let brought = image("sha256:1", &["r.io/a:latest"], &[]);
    assert_ne!(records.access("r.io/a@sha256:d", &brought), Access::All, "it may have come nevertheless");
    records.prune(&[], SystemTime::now()).await;
    assert!(records.is_left("r.io/a"), "it may still come");
    // Another pull of the name ends well: it says nothing of the first.
    records.intend("r.io/a", None).await.unwrap().end();
    assert_eq!((files(&dir, "pulling"), records.is_left("r.io/a")), (1, true));
    records.prune(&[], SystemTime::now() + std::time::Duration::from_secs(7200)).await;
    assert_eq!((files(&dir, "pulling"), records.is_left("r.io/a")), (0, false));
    assert_eq!(records.access("r.io/a", &brought), Access::All, "it was loaded since");
}

/// An image that was loaded stays everybody's when its name cannot be pulled.
#[tokio::test]
async fn what_had_the_name_before_a_pull_did_not_come_by_it() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(&dir);
    let first = records.intend("r.io/a:1", Some("sha256:1".into())).await.unwrap();
    assert_eq!(records.access("r.io/a:1", &one()), Access::All);
    let new = image("sha256:9", &["r.io/a:1"], &[]);
    assert_ne!(records.access("r.io/a:1", &new), Access::All);
    let second = records.intend("r.io/a:1", Some("sha256:9".into())).await.unwrap();
    assert_ne!(records.access("r.io/a:1", &new), Access::All, "the first may have brought it");
    drop((first, second));
    records.prune(&[one()], SystemTime::now()).await;
    assert_eq!(records.access("r.io/a:1", &one()), Access::All);
    let third = records.intend("r.io/b:1", Some("sha256:3".into())).await.unwrap();
    records.prune(&[one()], SystemTime::now()).await;
    let again = image("sha256:3", &["r.io/b:1"], &[]);
    assert_ne!(records.access("r.io/b:1", &again), Access::All, "it was removed and came again");
    third.end();
    records.settle(vec![new.clone()]).await;
    assert_ne!(records.access("r.io/a:1", &new), Access::All);
    assert_eq!((files(&dir, "pulling"), files(&dir, "pulled")), (0, 1));
}

#[test]
fn policies() {
    let allowlist = vec!["r.io/team/*".to_owned(), "r.io/one".to_owned()];
    for (policy, name, expect) in [
        (Policy::NeverVerify, "r.io/x", [false, false]),
        (Policy::NeverVerifyPreloadedImages, "r.io/x", [true, false]),
        (Policy::NeverVerifyAllowlistedImages, "r.io/team/a/b", [false, false]),
        (Policy::NeverVerifyAllowlistedImages, "r.io/teams/a", [true, true]),
        (Policy::NeverVerifyAllowlistedImages, "r.io/one", [false, false]),
        (Policy::AlwaysVerify, "r.io/x", [true, true]),
    ] {
        let settings = KubeletConfiguration {
            image_pull_credentials_verification_policy: policy,
            preloaded_images_verification_allowlist: allowlist.clone(),
            ..KubeletConfiguration::default()
        };
        let records = PullRecords::open(Path::new("/nowhere"), &settings);
        assert_eq!([true, false].map(|pulled| records.verifies(name, pulled)), expect, "{policy:?} {name}");
    }
}
