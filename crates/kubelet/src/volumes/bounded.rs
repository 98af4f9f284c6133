//! Work on file systems whose server may never answer: nobody waits for it longer than a bound, and no task's thread is held.

use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::oneshot;

/// How long work of this process is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does work on a thread of its own. An error of kind `TimedOut` after a minute: the work goes on then, unseen.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    // Not the runtime's threads for blocking work: it ends only after they do.
    std::thread::Builder::new().name("volumes".into()).spawn(move || drop(done.send(work())))?;
    match tokio::time::timeout(PATIENCE, result).await {
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the file system does not answer")),
        Ok(result) => result.map_err(io::Error::other)?,
    }
}

/// Runs a command to its end and gives what it printed; an error of kind `TimedOut` when it was killed instead, with all that
/// it started. The kernel lets processes that wait for a server be killed, which threads of this one cannot be.
pub async fn run(mut command: Command, patience: Duration) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn()?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let output = tokio::time::timeout(patience, child.wait_with_output()).await;
    let output = output.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "timed out"))??;
    group.0 = None;
    Ok(output)
}

/// A command and what it started, ended together when nobody waits for them any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_never_answers_is_left_after_a_minute() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let error = aside(move || held.recv().map_err(io::Error::other)).await.expect_err("answered");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(release);
    }

    #[tokio::test]
    async fn what_is_done_in_time_is_answered() {
        assert_eq!(aside(|| Ok(1)).await.expect("done"), 1);
        let error = aside(|| Err::<(), _>(io::ErrorKind::NotFound.into())).await.expect_err("found");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_command_is_killed_with_what_it_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & echo $!; wait"]);
        let error = run(command, Duration::from_millis(100)).await.expect_err("ended");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut command = Command::new("sh");
        command.args(["-c", "echo a; exit 3"]);
        let output = run(command, PATIENCE).await.expect("ran");
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"a\n".as_slice()));
    }
}
