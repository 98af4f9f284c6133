//! Files on the node that a pod or an image could have put in our way.

use super::{directory, escaped, layer, output};
use crate::bed::{Bed, shell};
use cri::*;
use std::os::unix::fs::symlink;
use std::time::Duration;

/// The log of a container, or its directory, is a link or a pipe that somebody put there.
pub async fn linked_logs(bed: &mut Bed) {
    let victim = directory(bed, "victim");
    std::fs::write(victim.join("0.log"), "untouched").unwrap();
    let sandbox = bed.sandbox().await;
    let evil = async |bed: &Bed| {
        let id = bed.service().create_container(&sandbox, shell("echo evil")).await?;
        bed.service().start_container(&id).await?;
        bed.exited(&id).await;
        bed.service().remove_container(&id).await
    };
    let logs = directory(bed, "logs");
    let check = |how: &str, ran: Result<()>| {
        if std::fs::read_to_string(victim.join("0.log")).unwrap() != "untouched" {
            escaped!("{how}: the log was written through it");
        }
        assert!(ran.is_err(), "{how}");
    };
    symlink(&victim, logs.join("c")).unwrap();
    check("a linked directory", evil(bed).await);
    std::fs::remove_file(logs.join("c")).unwrap();
    std::fs::create_dir(logs.join("c")).unwrap();
    symlink(victim.join("0.log"), logs.join("c/0.log")).unwrap();
    check("a linked file", evil(bed).await);
    std::fs::remove_file(logs.join("c/0.log")).unwrap();
    let pipe = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, logs.join("c/0.log"), pipe, 0o644.into(), 0).unwrap();
    let ran = tokio::time::timeout(Duration::from_secs(5), evil(bed)).await.expect("a pipe holds nobody up");
    check("a pipe", ran);
    std::fs::remove_file(logs.join("c/0.log")).unwrap();
    let elsewhere = directory(bed, "elsewhere/c");
    std::fs::rename(&logs, bed.dir.join("kept")).unwrap();
    symlink(elsewhere.parent().unwrap(), &logs).unwrap();
    let ran = evil(bed).await;
    if elsewhere.join("0.log").exists() {
        escaped!("the pod's directory is a link: the log was made behind it");
    }
    assert!(ran.is_err(), "a linked directory of the pod");
    std::fs::remove_file(&logs).unwrap();
    std::fs::rename(bed.dir.join("kept"), &logs).unwrap();
    // Put there later, before the log is opened anew.
    let id = bed.run(&sandbox, shell("until [ -e /tmp/go ]; do sleep 0.01; done; echo evil")).await;
    std::fs::rename(logs.join("c/0.log"), logs.join("c/old.log")).unwrap();
    symlink(victim.join("0.log"), logs.join("c/0.log")).unwrap();
    let reopened = bed.service().reopen_container_log(&id).await;
    bed.exec(&id, "touch /tmp/go").await;
    bed.exited(&id).await;
    check("a linked file at rotation", reopened);
}

/// Files of the image that the runtime reads never hold it up, and never lead it to the node's.
pub async fn strange_user_files(bed: &mut Bed) {
    let passwd = layer(bed, "etc/passwd");
    let sandbox = bed.sandbox().await;
    let mut config = shell("id");
    config.security_context.run_as_username = "web".into();
    let tried = async |bed: &Bed| {
        let tried = tokio::time::timeout(Duration::from_secs(5), output(bed, &sandbox, config.clone())).await;
        assert!(tried.expect("it holds nobody up").is_err());
        std::fs::remove_file(&passwd).unwrap();
    };
    std::fs::remove_file(&passwd).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &passwd, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    tried(bed).await;
    symlink("/dev/zero", &passwd).unwrap();
    tried(bed).await;
    // A file without an end that takes no room.
    std::fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
    tried(bed).await;
    // The node's users, seen over a link, are not the image's.
    let secret = bed.dir.join("users");
    std::fs::write(&secret, "web:x:0:0::/:/bin/sh\n").unwrap();
    symlink(&secret, &passwd).unwrap();
    tried(bed).await;
}

/// CVE-2020-15257: with the node's network a container sees its abstract sockets; ours are not among them.
pub async fn no_abstract_sockets(bed: &mut Bed) {
    let before = std::fs::read_to_string("/proc/net/unix").unwrap();
    let mut config = bed.sandbox_config();
    config.namespaces.network = NamespaceMode::Node;
    let sandbox = bed.service().run_pod_sandbox(config).await.unwrap();
    let mut config = shell("sleep 100");
    config.security_context.namespaces.network = NamespaceMode::Node;
    let id = bed.run(&sandbox, config).await;
    let seen = bed.exec(&id, "cat /proc/net/unix").await;
    let seen = String::from_utf8(seen.stdout).unwrap();
    let name = |line: &str| line.split_whitespace().nth(7).map(str::to_owned);
    assert!(seen.lines().filter_map(name).any(|path| path.ends_with("shim.sock")), "it sees the node's sockets");
    let known: Vec<_> = before.lines().filter_map(name).collect();
    let new: Vec<_> = seen.lines().filter_map(name).filter(|path| !known.contains(path)).collect();
    if let Some(socket) = new.iter().find(|path| path.starts_with('@') && path.contains("sagong")) {
        escaped!("{socket} is open to whoever has the node's network");
    }
}
