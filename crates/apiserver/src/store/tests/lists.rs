//! Lists, their freshness and their pages.

use super::*;

#[tokio::test]
async fn lists_what_is_selected() {
    let f = Fixture::new();
    for (namespace, name, node) in [("ns", "b", "n1"), ("ns", "a", "n2"), ("ns2", "c", "n1"), ("ns-3", "d", "")] {
        f.pod(namespace, name, node).await;
    }
    f.set("a", "/metadata/labels/app", "z").await;
    let table = [
        ("", "", "", "d a b c"),
        ("ns", "", "", "a b"),
        ("ns2", "", "", "c"),
        ("none", "", "", ""),
        ("", "app=z", "", "a"),
        ("", "app!=z", "", "d b c"),
        ("", "", "spec.nodeName=n1", "b c"),
        ("ns", "", "spec.nodeName=n1", "b"),
        ("", "", "spec.nodeName=", "d"),
        ("", "", "spec.nodeName!=n1", "d a"),
        ("", "", "metadata.name=c", "c"),
        ("", "app=z", "spec.nodeName=n1", ""),
        ("", "", "spec.nodeName=n9", ""),
        ("", "", "metadata.namespace=ns", "a b"),
    ];
    for (namespace, labels, fields, want) in table {
        let result = f.pods.list(list(select(namespace, labels, fields))).await.expect("list");
        assert_eq!((names(&result).as_str(), result.resource_version), (want, 5), "{namespace} {labels} {fields}");
        assert_eq!((result.continue_token.as_str(), result.remaining), ("", None));
    }
    for (namespace, want) in [("ns", "b"), ("ns2", ""), ("", "b")] {
        let selection = Selection { name: "b".into(), ..select(namespace, "", "") };
        assert_eq!(names(&f.pods.list(list(selection)).await.expect("list")), want, "{namespace}");
    }
    f.set("b", "/spec/nodeName", "n2").await;
    f.delete("a").await;
    let moved = f.pods.list(list(select("", "", "spec.nodeName=n2"))).await.expect("list");
    assert_eq!(names(&moved), "b");
}

#[tokio::test]
async fn lists_are_as_fresh_as_asked() {
    let f = Fixture::new();
    f.pod("ns", "a", "").await;
    f.pod("ns", "b", "").await;
    f.delete("a").await;
    let table = [
        (Freshness::Latest, Ok(("b", 3))),
        (Freshness::Any, Ok(("b", 3))),
        (Freshness::NotOlderThan(2), Ok(("b", 3))),
        (Freshness::Exact(3), Ok(("b", 3))),
        (Freshness::Exact(2), Ok(("a b", 2))),
        (Freshness::Exact(1), Ok(("a", 1))),
        (Freshness::Exact(9), Err((504, "Timeout: Too large resource version: 9, current: 3"))),
        (Freshness::NotOlderThan(9), Err((504, "Timeout: Too large resource version: 9, current: 3"))),
    ];
    for (freshness, want) in table {
        let result = f.pods.list(ListOptions { freshness, ..ListOptions::default() }).await;
        match (result, want) {
            (Ok(result), Ok(want)) => {
                assert_eq!((names(&result).as_str(), result.resource_version), want, "{freshness:?}")
            }
            (Err(status), Err(want)) => {
                assert_eq!((status.code, status.message.as_str()), want, "{freshness:?}");
                // A page does not know when its revision will have happened.
                let retry = if matches!(freshness, Freshness::Exact(_)) { None } else { Some(1) };
                assert_eq!(status.retry_after(), retry, "{freshness:?}");
            }
            (result, _) => panic!("{freshness:?}: {result:?}"),
        }
    }
    f.nodes.create(json!({"metadata": {"name": "n"}}), false).await.expect("create");
    let quiet = f.pods.list(ListOptions::default()).await.expect("list");
    assert_eq!((names(&quiet).as_str(), quiet.resource_version), ("b", 4), "other resources move the version");
    f.dispatcher.kv().compact(3).await.expect("compact");
    let expired = f.pods.list(ListOptions { freshness: Freshness::Exact(2), ..ListOptions::default() }).await;
    let expired = expired.expect_err("compacted");
    assert_eq!(
        (expired.code, expired.message.as_str()),
        (410, "The resourceVersion for the provided list is too old.")
    );
    let read = async |freshness| f.pods.get_at("ns", "b", freshness).await.map(|s| s.map(|s| s.meta.resource_version));
    assert_eq!((read(Freshness::Any).await, read(Freshness::NotOlderThan(4)).await), (Ok(Some(2)), Ok(Some(2))));
    assert_eq!(read(Freshness::NotOlderThan(5)).await.map_err(|e| e.code), Err(504));
}

async fn page(f: &Fixture, selection: Selection, token: &str) -> Result<ListResult, Status> {
    f.pods.list(ListOptions { selection, limit: 2, continue_token: token.into(), ..ListOptions::default() }).await
}

#[tokio::test]
async fn pages_show_one_revision() {
    let f = Fixture::new();
    for name in ["a", "b", "c", "d", "e"] {
        f.pod("ns", name, "").await;
    }
    for change_between in [false, true] {
        let first = page(&f, select("ns", "", ""), "").await.expect("page");
        assert_eq!((names(&first).as_str(), first.remaining), ("a b", Some(3)));
        if change_between {
            f.delete("c").await;
            f.pod("ns", "dd", "").await;
        }
        let second = page(&f, select("ns", "", ""), &first.continue_token).await.expect("page");
        assert_eq!(
            (names(&second).as_str(), second.remaining, second.resource_version),
            ("c d", Some(1), first.resource_version)
        );
        let third = page(&f, select("ns", "", ""), &second.continue_token).await.expect("page");
        assert_eq!((names(&third).as_str(), third.remaining, third.continue_token.as_str()), ("e", None, ""));
    }
    let selected = page(&f, select("", "app=a", ""), "").await.expect("page");
    assert_eq!((names(&selected).as_str(), selected.remaining), ("a b", None));
    let any = ListOptions { limit: 2, freshness: Freshness::Any, ..ListOptions::default() };
    assert_eq!(names(&f.pods.list(any).await.expect("list")), "a b d dd e");
}

#[tokio::test]
async fn expired_pages_can_be_continued() {
    let f = Fixture::new();
    for name in ["a", "b", "c", "d"] {
        f.pod("ns", name, "").await;
    }
    let first = page(&f, select("ns", "", ""), "").await.expect("page");
    f.delete("c").await;
    f.pod("ns", "e", "").await;
    f.dispatcher.kv().compact(5).await.expect("compact");
    let expired = page(&f, select("ns", "", ""), &first.continue_token).await.expect_err("compacted");
    assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"));
    assert!(
        expired
            .message
            .contains("or use the continue token in this response to retrieve the remainder of the results.")
    );
    assert_eq!(expired.to_object()["metadata"]["continue"], expired.continue_token.as_str());
    let rest = page(&f, select("ns", "", ""), &expired.continue_token).await.expect("inconsistent page");
    assert_eq!((names(&rest).as_str(), rest.resource_version), ("d e", 6));
    let bad = page(&f, select("ns", "", ""), "!").await.expect_err("no token");
    assert_eq!((bad.code, bad.reason.as_str()), (400, "BadRequest"));
}
