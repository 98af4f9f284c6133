//! Giving the kernel back what a busy time took: malloc(3) keeps it otherwise, for good.

use apiserver::ApiServer;
use cri::{ContainerEvent, ContainerEventKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// From the last end of a pod until memory is given back: pods end together, and what is given back is to be faulted in again.
const AFTER_PODS: Duration = Duration::from_secs(10);

/// How long pods that go on ending put it off.
const AT_MOST: Duration = Duration::from_secs(60);

/// Gives memory back each time the store has forgotten a busy time.
pub async fn follow_store(server: Arc<ApiServer>, stop: CancellationToken) {
    while stop.run_until_cancelled(server.registry().dispatcher().has_forgotten()).await.is_some() {
        give_back().await;
    }
}

/// Gives memory back some time after containers were removed.
pub async fn follow_pods(mut events: Receiver<ContainerEvent>, stop: CancellationToken) {
    while stop.run_until_cancelled(removal(&mut events)).await == Some(true) {
        if stop.run_until_cancelled(settled(&mut events)).await.is_none() {
            return;
        }
        give_back().await;
    }
}

/// Waits until removals have come to rest, or for [`AT_MOST`].
async fn settled(events: &mut Receiver<ContainerEvent>) {
    let rest = async { while timeout(AFTER_PODS, removal(events)).await == Ok(true) {} };
    // They may not come to rest.
    let _ = timeout(AT_MOST, rest).await;
}

/// Waits until something is removed; false when there will be no more events.
async fn removal(events: &mut Receiver<ContainerEvent>) -> bool {
    loop {
        match events.recv().await {
            Ok(event) if event.kind != ContainerEventKind::Deleted => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

async fn give_back() {
    // It ends by itself.
    let _ = tokio::task::spawn_blocking(runtime::give_back_memory).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: ContainerEventKind) -> ContainerEvent {
        ContainerEvent { kind, id: String::new(), pod_uid: String::new(), at: 0 }
    }

    #[tokio::test(start_paused = true)]
    async fn removals_put_it_off_for_a_minute() {
        let (events, mut seen) = tokio::sync::broadcast::channel(8);
        let start = tokio::time::Instant::now();
        tokio::spawn(async move {
            for _ in 0..100 {
                events.send(event(ContainerEventKind::Deleted)).unwrap();
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
            std::future::pending::<()>().await;
        });
        settled(&mut seen).await;
        assert_eq!(start.elapsed(), AT_MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn it_follows_the_last_removal() {
        let (events, mut seen) = tokio::sync::broadcast::channel(8);
        let start = tokio::time::Instant::now();
        let ends = async {
            for _ in 0..3 {
                events.send(event(ContainerEventKind::Deleted)).unwrap();
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
        };
        tokio::join!(settled(&mut seen), ends);
        assert_eq!(start.elapsed(), Duration::from_secs(8) + AFTER_PODS);
    }

    #[tokio::test]
    async fn only_removals_end_a_busy_time() {
        let (events, mut seen) = tokio::sync::broadcast::channel(8);
        events.send(event(ContainerEventKind::Stopped)).unwrap();
        events.send(event(ContainerEventKind::Deleted)).unwrap();
        assert!(removal(&mut seen).await);
        assert!(seen.is_empty());
        drop(events);
        assert!(!removal(&mut seen).await);
    }
}
