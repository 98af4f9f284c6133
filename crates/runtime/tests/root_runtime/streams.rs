//! exec, attach, port-forward.

use crate::bed::{Bed, shell};
use cri::*;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn request(id: &str, script: &str, tty: bool, stdin: bool) -> ExecRequest {
    let cmd = vec!["sh".into(), "-c".into(), script.into()];
    ExecRequest { container_id: id.into(), cmd, tty, stdin, stdout: true, stderr: !tty }
}

async fn all(reader: &mut Reader) -> String {
    let mut text = String::new();
    tokio::time::timeout(Duration::from_secs(5), reader.read_to_string(&mut text))
        .await
        .expect("the stream ends")
        .unwrap();
    text
}

/// Reads until a text has come.
async fn until(reader: &mut Reader, text: &str) -> String {
    let mut seen = String::new();
    let mut chunk = [0; 1024];
    while !seen.contains(text) {
        let length = tokio::time::timeout(Duration::from_secs(5), reader.read(&mut chunk))
            .await
            .unwrap_or_else(|_| panic!("no {text:?} in {seen:?}"))
            .unwrap();
        assert!(length > 0, "no {text:?} in {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..length]));
    }
    seen
}

async fn sleeper(bed: &Bed) -> String {
    let sandbox = bed.sandbox().await;
    bed.run(&sandbox, shell("sleep 100")).await
}

pub async fn exec_sync(bed: &mut Bed) {
    let id = sleeper(bed).await;
    let began = Instant::now();
    let output = bed.exec(&id, "echo out; echo err >&2; exit 4").await;
    println!("     exec_sync {:.1?}", began.elapsed());
    assert_eq!((output.stdout, output.stderr, output.exit_code), (b"out\n".to_vec(), b"err\n".to_vec(), 4));
    let large = bed.exec(&id, "head -c 300000 /dev/zero").await;
    assert_eq!(large.stdout.len(), 300_000);
    let service = bed.service();
    let began = Instant::now();
    let error =
        service.exec_sync(&id, vec!["sleep".into(), "50".into()], Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded(_)) && began.elapsed() < Duration::from_secs(2));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bed.exec(&id, "ps | grep -c '[s]leep 50'").await.stdout, b"0\n");
    let error = service.exec_sync(&id, vec!["nothing".into()], Duration::ZERO).await.unwrap_err().to_string();
    assert!(error.ends_with("exec: \"nothing\": executable file not found in $PATH"), "{error}");
    let killed = bed.exec(&id, "kill -9 $$").await;
    assert_eq!(killed.exit_code, 137);
    service.stop_container(&id, Duration::ZERO).await.unwrap();
    let error = service.exec_sync(&id, vec!["true".into()], Duration::ZERO).await.unwrap_err().to_string();
    assert_eq!(error, "container is in CONTAINER_EXITED state");
}

/// A container that gets no CPU for a while: whoever joins it waits.
pub async fn exec_waits(bed: &mut Bed) {
    let id = sleeper(bed).await;
    let pid = bed.service().container_status(&id).await.unwrap().pid.unwrap();
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let (file, frozen, thawed) = match crate::bed::unified() {
        true => ("cgroup.freeze", "1", "0"),
        false => ("freezer.state", "FROZEN", "THAWED"),
    };
    let (start, hierarchy) = if crate::bed::unified() { ("0::", "") } else { (":freezer:", "/freezer") };
    let (_, path) = cgroups.lines().find_map(|line| line.split_once(start)).unwrap();
    let file = format!("/sys/fs/cgroup{hierarchy}{path}/{file}");
    std::fs::write(&file, frozen).unwrap();
    let thaw = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        std::fs::write(&file, thawed).unwrap();
    };
    let (output, ()) = tokio::join!(bed.exec(&id, "echo hi"), thaw);
    assert_eq!(output.stdout, b"hi\n");
}

/// A container that leaves those who join it next to no CPU: it ends all the same.
pub async fn ends_while_execs_wait(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let mut greedy = shell("for i in $(seq 20); do (while :; do :; done) & done; wait");
    greedy.resources =
        LinuxContainerResources { cpu_period: 1_000_000, cpu_quota: 1000, ..LinuxContainerResources::default() };
    let id = bed.run(&sandbox, greedy).await;
    let service = bed.service();
    let execs = (0..5).map(|_| {
        let (service, id) = (service.clone(), id.clone());
        tokio::spawn(async move { service.exec_sync(&id, vec!["true".into()], Duration::from_secs(1)).await })
    });
    let execs: Vec<_> = execs.collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stopped = service.stop_container(&id, Duration::from_secs(1));
    tokio::time::timeout(Duration::from_secs(20), stopped).await.expect("it ends").unwrap();
    for exec in execs {
        exec.await.unwrap().expect_err("no exec came through");
    }
}

pub async fn exec_with_pipes(bed: &mut Bed) {
    let id = sleeper(bed).await;
    let mut streams = bed.service().exec(request(&id, "cat; echo done >&2; exit 3", false, true)).await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    drop(stdin);
    assert_eq!(all(streams.stdout.as_mut().unwrap()).await, "hello");
    assert_eq!(all(streams.stderr.as_mut().unwrap()).await, "done\n");
    assert_eq!(streams.exit.await.unwrap().unwrap(), 3);
    let only_out = ExecRequest { stderr: false, ..request(&id, "echo x >&2; echo y", false, false) };
    let mut streams = bed.service().exec(only_out).await.unwrap();
    assert!(streams.stdin.is_none() && streams.stderr.is_none());
    assert_eq!(all(streams.stdout.as_mut().unwrap()).await, "y\n");
}

pub async fn exec_with_terminal(bed: &mut Bed) {
    let id = sleeper(bed).await;
    let mut streams = bed
        .service()
        .exec(request(&id, "tty; echo $TERM; read line; stty size; echo got $line; exit 5", true, true))
        .await
        .unwrap();
    let stdout = streams.stdout.as_mut().unwrap();
    let seen = until(stdout, "xterm").await;
    assert!(seen.contains("/dev/pts/0"), "{seen}");
    streams.resize.as_ref().unwrap().send(TerminalSize { width: 101, height: 33 }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    streams.stdin.as_mut().unwrap().write_all(b"words\n").await.unwrap();
    let rest = all(stdout).await;
    assert!(rest.contains("33 101") && rest.contains("got words"), "{rest}");
    assert_eq!(streams.exit.await.unwrap().unwrap(), 5);
}

pub async fn attach(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let mut config = shell("echo early; cat; echo end; exit 6");
    (config.stdin, config.stdin_once) = (true, true);
    let id = bed.run(&sandbox, config).await;
    while crate::bed::read_log(&bed.dir.join("logs/c/0.log")).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut streams = bed.service().attach(request(&id, "", false, true)).await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    // More than any pipe holds, while nobody reads: the container waits, nothing is lost.
    let many = "0123456789abcde\n".repeat(20_000);
    let writer = tokio::spawn(async move {
        stdin.write_all(many.as_bytes()).await.unwrap();
        drop(stdin);
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let text = all(streams.stdout.as_mut().unwrap()).await;
    writer.await.unwrap();
    assert_eq!(text.len(), 16 * 20_000 + "end\n".len());
    assert!(text.ends_with("abcde\nend\n") && !text.contains("early"));
    assert_eq!(streams.exit.await.unwrap().unwrap(), 6);
    let lines = crate::bed::read_log(&bed.dir.join("logs/c/0.log"));
    assert_eq!((lines.len(), lines.last().unwrap().as_str()), (20_002, "stdout F end"));
    let error = bed.service().attach(request(&id, "", false, true)).await.err().unwrap().to_string();
    assert_eq!(error, "container is in CONTAINER_EXITED state");
}

pub async fn attach_terminal(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let mut config = shell("tty; ls -l /dev/console; while read line; do echo got $line; stty size; done");
    (config.stdin, config.tty) = (true, true);
    let id = bed.run(&sandbox, config).await;
    bed.restart().await;
    for round in 0..2 {
        let mut streams = bed.service().attach(request(&id, "", true, true)).await.unwrap();
        streams.resize.as_ref().unwrap().send(TerminalSize { width: 90 + round, height: 20 }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        streams.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
        let seen = until(streams.stdout.as_mut().unwrap(), &format!("20 {}", 90 + round)).await;
        assert!(seen.contains("got hello"), "{seen}");
    }
    let log = crate::bed::read_log(&bed.dir.join("logs/c/0.log"));
    assert!(log[0].contains("/dev/pts/0"), "{log:?}");
}

pub async fn port_forward(bed: &mut Bed) {
    let sandbox = bed.sandbox().await;
    let id = bed.run(&sandbox, shell("echo hi | nc -l -p 8080")).await;
    let mut connected = None;
    for _ in 0..100 {
        match bed.service().port_forward(&sandbox, 8080).await {
            Ok(stream) => connected = Some(stream),
            Err(error) => {
                assert!(error.to_string().contains("connection refused"), "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        }
        break;
    }
    let mut text = String::new();
    connected.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hi\n");
    bed.exited(&id).await;
}
