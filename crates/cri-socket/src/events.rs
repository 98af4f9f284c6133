//! Events of a remote runtime: its own stream where it has one, else the differences of its lists.

use crate::client::{Client, call, timed};
use cri::{ContainerEvent, ContainerEventKind};
use protos::cri as p;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast::Sender;
use tonic::Code;

/// How often lists are compared. A runtime without GetContainerEvents (containerd before 1.7) has no event we could
/// wait for; a second is upstream's period too.
const RELIST: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_secs(1);
const POD_UID: &str = "io.kubernetes.pod.uid";

/// Sends events until nobody can listen any more.
pub async fn follow(mut client: Client, events: Sender<ContainerEvent>) {
    loop {
        match client.get_container_events(p::GetEventsRequest {}).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                while let Ok(Some(event)) = stream.message().await {
                    let _ = events.send(convert(event));
                }
            }
            Err(status) if status.code() == Code::Unimplemented => return compare(client, events).await,
            Err(_) => {}
        }
        // The runtime restarts; what happened meanwhile is found by its pods' lists.
        tokio::time::sleep(RETRY).await;
    }
}

fn convert(event: p::ContainerEventResponse) -> ContainerEvent {
    let kind = match event.container_event_type() {
        p::ContainerEventType::ContainerCreatedEvent => ContainerEventKind::Created,
        p::ContainerEventType::ContainerStartedEvent => ContainerEventKind::Started,
        p::ContainerEventType::ContainerStoppedEvent => ContainerEventKind::Stopped,
        p::ContainerEventType::ContainerDeletedEvent => ContainerEventKind::Deleted,
    };
    let metadata = event.pod_sandbox_status.and_then(|s| s.metadata).unwrap_or_default();
    ContainerEvent { kind, id: event.container_id, pod_uid: metadata.uid, at: event.created_at }
}

/// What is compared: the state of each container and sandbox, and its pod.
type Seen = BTreeMap<String, (i32, String)>;
const GONE: i32 = -1;
/// States of sandboxes are told from those of containers by this.
const SANDBOX: i32 = 100;

async fn compare(mut client: Client, events: Sender<ContainerEvent>) {
    let mut before: Option<Seen> = None;
    loop {
        if let Ok(now) = look(&mut client).await {
            for event in differences(before.as_ref().unwrap_or(&now), &now) {
                let _ = events.send(event);
            }
            before = Some(now);
        }
        tokio::time::sleep(RELIST).await;
    }
}

async fn look(client: &mut Client) -> cri::Result<Seen> {
    let sandboxes = call(client.list_pod_sandbox(timed(p::ListPodSandboxRequest::default()))).await?.items;
    let containers = call(client.list_containers(timed(p::ListContainersRequest::default()))).await?.containers;
    let sandboxes = sandboxes.into_iter().map(|s| (s.id, (SANDBOX + s.state, s.metadata.unwrap_or_default().uid)));
    let containers =
        containers.into_iter().map(|mut c| (c.id, (c.state, c.labels.remove(POD_UID).unwrap_or_default())));
    Ok(sandboxes.chain(containers).collect())
}

fn differences(before: &Seen, now: &Seen) -> Vec<ContainerEvent> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64);
    let event = |id: &str, pod_uid: &str, state: i32| {
        let kind = match state {
            GONE => ContainerEventKind::Deleted,
            s if s == p::ContainerState::ContainerCreated as i32 => ContainerEventKind::Created,
            s if s == p::ContainerState::ContainerRunning as i32 || s == SANDBOX => ContainerEventKind::Started,
            _ => ContainerEventKind::Stopped,
        };
        ContainerEvent { kind, id: id.to_owned(), pod_uid: pod_uid.to_owned(), at }
    };
    let changed = now.iter().filter(|(id, (state, _))| before.get(*id).is_none_or(|(old, _)| old != state));
    let changed = changed.map(|(id, (state, uid))| event(id, uid, *state));
    let gone = before.iter().filter(|(id, _)| !now.contains_key(*id)).map(|(id, (_, uid))| event(id, uid, GONE));
    changed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_differ_by_events() {
        let seen = |list: &[(&str, i32)]| {
            list.iter().map(|(id, s)| ((*id).to_owned(), (*s, "u".to_owned()))).collect::<Seen>()
        };
        let check = |before: &[(&str, i32)], now: &[(&str, i32)], expect: &[(&str, ContainerEventKind)]| {
            let got: Vec<_> = differences(&seen(before), &seen(now)).into_iter().map(|e| (e.id, e.kind)).collect();
            assert_eq!(got, expect.iter().map(|(id, k)| ((*id).to_owned(), k.clone())).collect::<Vec<_>>());
        };
        check(&[("a", 1)], &[("a", 1)], &[]);
        check(&[], &[("a", 0)], &[("a", ContainerEventKind::Created)]);
        check(&[("a", 1)], &[("a", 2)], &[("a", ContainerEventKind::Stopped)]);
        check(&[("s", 100)], &[("s", 101)], &[("s", ContainerEventKind::Stopped)]);
        check(&[("a", 1)], &[], &[("a", ContainerEventKind::Deleted)]);
    }
}
