//! Imports whole archives into a store (needs root: owners, device nodes, `trusted.*` attributes).

use images::Store;
use std::path::Path;
use std::process::Command;

fn sh(dir: &Path, script: &str) -> String {
    let out = Command::new("sh").arg("-euc").arg(script).current_dir(dir).output().unwrap();
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// Writes a docker archive with two layers into `dir` and returns its path.
fn docker_archive(dir: &Path, compress: &str) -> std::path::PathBuf {
    assert!(rustix::process::geteuid().is_root(), "these tests need root");
    sh(
        dir,
        &format!(
            r#"
            mkdir -p l1/bin l1/etc l2/etc a
            echo base > l1/etc/base; echo tool > l1/bin/tool; chmod 4755 l1/bin/tool; chown 7:8 l1/etc/base
            : > l2/etc/.wh.base; echo new > l2/etc/new
            tar -C l1 -cf 1.tar bin etc; tar -C l2 -cf 2.tar etc
            d1=$(sha256sum 1.tar | cut -d' ' -f1); d2=$(sha256sum 2.tar | cut -d' ' -f1)
            {compress}
            printf '{{"architecture":"%s","os":"linux","config":{{"Cmd":["/bin/tool"],"User":"7:8","Env":["A=b"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:%s","sha256:%s"]}}}}' \
                "$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')" $d1 $d2 > a/config.json
            mv 1.tar 2.tar a/
            printf '[{{"Config":"config.json","RepoTags":["tool:v1","example.com/x/tool:v2"],"Layers":["1.tar","2.tar"]}}]' > a/manifest.json
            tar -C a -cf image.tar 1.tar 2.tar config.json manifest.json
            "#
        ),
    );
    dir.join("image.tar")
}

#[test]
fn imports_runs_and_removes() {
    for compress in
        ["", "gzip 1.tar && mv 1.tar.gz 1.tar", "gzip 1.tar 2.tar && mv 1.tar.gz 1.tar && mv 2.tar.gz 2.tar"]
    {
        let dir = tempfile::tempdir().unwrap();
        let archive = docker_archive(dir.path(), compress);
        let store = Store::open(dir.path().join("store")).unwrap();
        let names = store.import(&archive).unwrap();
        assert_eq!(names, ["docker.io/library/tool:v1", "example.com/x/tool:v2"]);
        let image = store.hold("node", "c1", "tool:v1").unwrap();
        assert_eq!((image.config.cmd.clone(), image.config.user.as_str()), (vec!["/bin/tool".to_owned()], "7:8"));
        assert_eq!(image.layers.len(), 2);
        assert!(image.layers[0].join("etc/new").exists() && image.layers[1].join("bin/tool").exists());
        assert_eq!(store.image(&image.id).unwrap(), image);
        // Again from a compressed stream: the same image.
        let zipped = sh(dir.path(), "gzip -c image.tar > image.tgz; echo image.tgz");
        store.import_reader("stdin", std::fs::File::open(dir.path().join(zipped)).unwrap()).unwrap();
        store.remove("example.com/x/tool:v2").unwrap();
        assert!(store.image("tool:v1").is_err());
        assert!(image.layers[1].exists(), "a container holds it");
        store.release("node", "c1").unwrap();
        assert!(!image.layers[1].exists());
        assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
    }
}

#[test]
fn saved_archives_are_docker_s_too_and_keep_their_digests() {
    let dir = tempfile::tempdir().unwrap();
    let archive = docker_archive(dir.path(), "");
    let open = |name: &str| Store::open(dir.path().join(name)).unwrap();
    let (from, to) = (open("from"), open("to"));
    from.import(&archive).unwrap();
    let saved = dir.path().join("saved.tar");
    from.export(&["tool:v1".to_owned()], &mut std::fs::File::create(&saved).unwrap()).unwrap();
    let read = |file: &str| {
        serde_json::from_str::<serde_json::Value>(&sh(dir.path(), &format!("tar -xOf saved.tar {file}"))).unwrap()
    };
    let docker = read("manifest.json");
    assert_eq!(docker[0]["RepoTags"], serde_json::json!(["docker.io/library/tool:v1", "example.com/x/tool:v2"]));
    let members = sh(dir.path(), "tar -tf saved.tar");
    for path in docker[0]["Layers"].as_array().unwrap().iter().chain([&docker[0]["Config"]]) {
        assert!(members.lines().any(|member| member == path), "{path}");
    }
    to.import(&saved).unwrap();
    let digest = read("index.json")["manifests"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(to.image(&format!("tool@{digest}")).unwrap().id, to.image("tool:v1").unwrap().id);
}

#[test]
fn damaged_archives_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let archive = docker_archive(dir.path(), "echo x >> l2/etc/new; tar -C l2 -cf 2.tar etc");
    let store = Store::open(dir.path().join("store")).unwrap();
    let error = store.import(&archive).unwrap_err().to_string();
    assert!(error.contains("altered or damaged"), "{error}");
    let bytes = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    assert!(store.import(&archive).is_err());
    for name in ["layers", "tmp", "blobs/sha256"] {
        assert_eq!(std::fs::read_dir(dir.path().join("store").join(name)).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let archive = docker_archive(
        dir.path(),
        "head -c 3000000 /dev/urandom > l2/etc/big; tar -C l2 -cf 2.tar etc; d2=$(sha256sum 2.tar | cut -d' ' -f1)",
    );
    sh(dir.path(), "mkdir small && mount -t tmpfs -o size=2m sagong-test small");
    let result = Store::open(dir.path().join("small/store")).and_then(|store| store.import(&archive));
    let left = sh(dir.path(), "ls small/store/tmp small/store/layers | grep -v : || true");
    sh(dir.path(), "umount small");
    let error = result.unwrap_err().to_string();
    assert!(error.contains("no space left") && left.is_empty(), "{error} {left}");
}

#[test]
fn oci_layouts_pick_this_platform() {
    let dir = tempfile::tempdir().unwrap();
    docker_archive(dir.path(), "");
    sh(
        dir.path(),
        r#"
        mkdir -p oci/blobs/sha256; cd oci
        put() { h=$(sha256sum $1 | cut -d' ' -f1); cp $1 blobs/sha256/$h; echo $h; }
        gzip -c ../a/1.tar > ../1.gz; gzip -c ../a/2.tar > ../2.gz
        l1=$(put ../1.gz); l2=$(put ../2.gz); c=$(put ../a/config.json)
        printf '{"schemaVersion":2,"config":{"digest":"sha256:%s"},"layers":[{"digest":"sha256:%s"},{"digest":"sha256:%s"}]}' $c $l1 $l2 > ../m
        m=$(put ../m); arch=$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')
        printf '{"schemaVersion":2,"manifests":[{"digest":"sha256:%064d","platform":{"os":"linux","architecture":"s390x"}},{"digest":"sha256:%s","platform":{"os":"linux","architecture":"%s"}}]}' 0 $m $arch > ../i
        i=$(put ../i)
        printf '{"schemaVersion":2,"manifests":[{"digest":"sha256:%s","annotations":{"org.opencontainers.image.ref.name":"quay.io/a/b:1"}}]}' $i > index.json
        echo '{"imageLayoutVersion":"1.0.0"}' > oci-layout
        tar -cf ../oci.tar .
        "#,
    );
    let store = Store::open(dir.path().join("store")).unwrap();
    assert_eq!(store.import(&dir.path().join("oci")).unwrap(), ["quay.io/a/b:1"]);
    assert_eq!(store.import(&dir.path().join("oci.tar")).unwrap(), ["quay.io/a/b:1"]);
    assert_eq!(store.image("quay.io/a/b:1").unwrap().layers.len(), 2);
}

#[test]
fn many_importers_and_removers_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let archive = docker_archive(dir.path(), "");
    let path = dir.path().join("store");
    std::thread::scope(|scope| {
        for worker in 0..6 {
            let (archive, path) = (&archive, &path);
            scope.spawn(move || {
                for round in 0..5 {
                    // A store of its own, as another process would have.
                    let store = Store::open(path).unwrap();
                    store.import(archive).unwrap();
                    let container = format!("c{worker}-{round}");
                    // Another worker may have removed the image meanwhile; a hold that succeeds is good.
                    if let Ok(image) = store.hold("node", &container, "tool:v1") {
                        store.remove("tool:v1").unwrap();
                        assert!(image.layers.iter().all(|layer| layer.read_dir().unwrap().count() > 0));
                        store.release("node", &container).unwrap();
                    }
                }
            });
        }
    });
    let store = Store::open(&path).unwrap();
    store.remove("tool:v1").unwrap();
    for name in ["layers", "tmp", "blobs/sha256", "holds/node"] {
        assert_eq!(std::fs::read_dir(path.join(name)).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn leftovers_of_a_crash_are_removed_and_those_of_the_living_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (dead, alive) = (dir.path().join("tmp/dead"), dir.path().join("tmp/alive"));
    std::fs::create_dir_all(dead.join("fs")).unwrap();
    std::fs::write(dir.path().join("tmp/file"), "half").unwrap();
    std::fs::create_dir(&alive).unwrap();
    let lock = std::fs::File::open(&alive).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    drop(store);
    Store::open(dir.path()).unwrap();
    let left: Vec<_> = std::fs::read_dir(dir.path().join("tmp")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["alive"]);
}
