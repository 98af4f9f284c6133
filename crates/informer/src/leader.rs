//! Leader election on a Lease, so that one of several servers runs the controllers.

use api::k8s::coordination::v1::{Lease, LeaseSpec};
use api::machinery::apis::meta::v1::{MicroTime, ObjectMeta};
use jiff::Timestamp;
use kube::api::{Api, PostParams};
use rand::RngExt;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Contends for a Lease with Kubernetes' default times (15 s lease, 10 s renew deadline, 2 s retry).
pub struct LeaderElector {
    leases: Api<Lease>,
    name: String,
    identity: String,
    lease: Duration,
    renew_deadline: Duration,
    retry: Duration,
}

/// What was last seen of the lease, and when by our own clock: other machines' clocks are not trusted.
struct Observed {
    record: Option<LeaseSpec>,
    at: Instant,
}

impl LeaderElector {
    /// An elector for the Lease `namespace/name`; `identity` must differ between contenders.
    pub fn new(client: kube::Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.into(),
            identity: identity.into(),
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }

    /// Waits until this process leads. The returned token is cancelled when leadership is lost or
    /// `shutdown` comes (which gives the lease up); what leads must stop then.
    pub async fn lead(self, shutdown: CancellationToken) -> Option<CancellationToken> {
        let mut observed = Observed { record: None, at: Instant::now() };
        while !self.try_acquire(&mut observed).await {
            let pause = jittered(self.retry);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return None,
            }
        }
        let leading = shutdown.child_token();
        tokio::spawn(self.renew(observed, leading.clone(), shutdown));
        Some(leading)
    }

    async fn renew(self, mut observed: Observed, leading: CancellationToken, shutdown: CancellationToken) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.renew_deadline {
            tokio::select! {
                () = tokio::time::sleep(self.retry) => {}
                () = shutdown.cancelled() => return self.release().await,
            }
            let left = self.renew_deadline.saturating_sub(renewed.elapsed());
            if tokio::time::timeout(left, self.try_acquire(&mut observed)).await == Ok(true) {
                renewed = Instant::now();
            }
        }
        tracing::error!(lease = %self.name, "leadership lost");
        leading.cancel();
    }

    async fn try_acquire(&self, observed: &mut Observed) -> bool {
        match self.acquire(observed).await {
            Ok(leads) => leads,
            Err(error) => {
                tracing::debug!(lease = %self.name, %error, "lease was not acquired");
                false
            }
        }
    }

    async fn acquire(&self, observed: &mut Observed) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..Default::default() };
            let lease = Lease { metadata, spec: Some(self.record(None)) };
            observed.record = self.leases.create(&PostParams::default(), &lease).await?.spec;
            observed.at = Instant::now();
            return Ok(true);
        };
        if lease.spec != observed.record {
            *observed = Observed { record: lease.spec.clone(), at: Instant::now() };
        }
        let old = lease.spec.take().unwrap_or_default();
        let holder = old.holder_identity.as_deref().unwrap_or("");
        let term = Duration::from_secs(old.lease_duration_seconds.map_or(15, |s| s.max(1) as u64));
        if !holder.is_empty() && holder != self.identity && observed.at.elapsed() < term {
            return Ok(false);
        }
        lease.spec = Some(self.record(Some(&old)));
        observed.record = self.leases.replace(&self.name, &PostParams::default(), &lease).await?.spec;
        observed.at = Instant::now();
        Ok(true)
    }

    fn record(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = old.filter(|old| old.holder_identity.as_deref() == Some(&self.identity));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.lease.as_secs() as i32),
            acquire_time: ours.and_then(|old| old.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(old.is_some() && ours.is_none())),
            ..Default::default()
        }
    }

    async fn release(&self) {
        let patch = serde_json::json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}});
        let merge = kube::api::Patch::Merge(&patch);
        if let Err(error) = self.leases.patch(&self.name, &Default::default(), &merge).await {
            tracing::debug!(lease = %self.name, %error, "lease was not released");
        }
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(1.0..2.2))
}
