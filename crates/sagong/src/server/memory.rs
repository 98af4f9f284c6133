//! Giving the kernel back what a busy time took: malloc(3) keeps it otherwise, for good.

use apiserver::ApiServer;
use cri::{ContainerEvent, ContainerEventKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// From the end of a pod until memory is given back: pods end together.
const AFTER_PODS: Duration = Duration::from_secs(10);

/// Gives memory back each time the store has forgotten a busy time.
pub async fn follow_store(server: Arc<ApiServer>, stop: CancellationToken) {
    while stop.run_until_cancelled(server.registry().dispatcher().has_forgotten()).await.is_some() {
        give_back().await;
    }
}

/// Gives memory back some time after containers were removed.
pub async fn follow_pods(mut events: Receiver<ContainerEvent>, stop: CancellationToken) {
    while stop.run_until_cancelled(removal(&mut events)).await == Some(true) {
        if stop.run_until_cancelled(tokio::time::sleep(AFTER_PODS)).await.is_none() {
            return;
        }
        // What ended meanwhile is given back with the first.
        events = events.resubscribe();
        give_back().await;
    }
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

    #[tokio::test]
    async fn only_removals_end_a_busy_time() {
        let (events, mut seen) = tokio::sync::broadcast::channel(8);
        let event = |kind| ContainerEvent { kind, id: String::new(), pod_uid: String::new(), at: 0 };
        events.send(event(ContainerEventKind::Stopped)).unwrap();
        events.send(event(ContainerEventKind::Deleted)).unwrap();
        assert!(removal(&mut seen).await);
        assert!(seen.is_empty());
        drop(events);
        assert!(!removal(&mut seen).await);
    }
}
