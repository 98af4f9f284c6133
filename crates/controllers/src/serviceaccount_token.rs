//! Secrets of the type `kubernetes.io/service-account-token`: filled with a token of the service account that
//! their annotation names, deleted with that account.

use crate::context::{Context, synced};
use crate::ownership::{is_conflict, is_not_found};
use api::k8s::core::v1::{Secret, ServiceAccount};
use informer::{Controller, Error, Event, Informer, Key, Reconcile, Requeue, WorkQueue};
use k8s_openapi::ByteString;
use kube::api::{DeleteParams, PostParams, Preconditions};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

struct Tokens {
    ctx: Context,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
}

pub(crate) async fn run(ctx: Context) {
    let queue = WorkQueue::new();
    // Only these: every secret of a cluster would be kept in memory otherwise.
    let secrets = ctx.factory().informer_filtered::<Secret>(&format!("type={TYPE}"), "", "");
    let accounts = ctx.informer::<ServiceAccount>();
    let enqueue = queue.clone();
    secrets.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    let (enqueue, of_account) = (queue.clone(), secrets.clone());
    accounts.on_event(move |event| {
        let Event::Deleted(account) = event else { return };
        let secrets = of_account.list_in(account.metadata.namespace.as_deref().unwrap_or_default());
        for secret in secrets.iter().filter(|s| annotation(s, ACCOUNT) == account.metadata.name.as_deref()) {
            enqueue.add(Key::of(secret.as_ref()));
        }
    });
    synced!(secrets, accounts);
    let reconciler = Tokens { ctx: ctx.clone(), secrets, accounts };
    Controller::new("serviceaccount-token", queue, reconciler).run(ctx.shutdown()).await;
}

impl Reconcile for Tokens {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(secret) = self.secrets.get_key(key) else { return Ok(Requeue::Done) };
        let Some(name) = annotation(&secret, ACCOUNT) else { return Ok(Requeue::Done) };
        let done = match self.account(key, name, annotation(&secret, ACCOUNT_UID)).await? {
            Some(account) => self.fill(key, &secret, &account).await,
            None => self.delete(key, &secret).await,
        };
        match done {
            // Another writer was faster: its event brings the key back.
            Err(error) if !is_not_found(&error) && !is_conflict(&error) => Err(error.into()),
            _ => Ok(Requeue::Done),
        }
    }
}

impl Tokens {
    /// The account of a name, and of a UID if one is known; asked of the server where the cache has none.
    async fn account(&self, key: &Key, name: &str, uid: Option<&str>) -> Result<Option<ServiceAccount>, Error> {
        let is = |account: &ServiceAccount| uid.is_none() || account.metadata.uid.as_deref() == uid;
        if let Some(account) = self.accounts.get(&key.namespace, name).filter(|a| is(a)) {
            return Ok(Some(ServiceAccount::clone(&account)));
        }
        let account = self.ctx.api::<ServiceAccount>(&key.namespace).get_opt(name).await?;
        Ok(account.filter(is))
    }

    async fn fill(&self, key: &Key, secret: &Secret, account: &ServiceAccount) -> Result<(), kube::Error> {
        let Some(filled) = self.filled(key, secret, account) else { return Ok(()) };
        let secrets = self.ctx.api::<Secret>(&key.namespace);
        secrets.replace(&key.name, &PostParams::default(), &filled).await.map(drop)
    }

    /// The secret with all that it lacks; `None` when it lacks nothing.
    fn filled(&self, key: &Key, secret: &Secret, account: &ServiceAccount) -> Option<Secret> {
        let signer = self.ctx.config().token_key.as_ref()?;
        let (name, uid) = (account.metadata.name.as_deref()?, account.metadata.uid.as_deref()?);
        let mut filled = secret.clone();
        let data = filled.data.get_or_insert_default();
        data.insert("ca.crt".into(), ByteString(self.ctx.config().root_ca.clone().into_bytes()));
        if data.get("namespace").is_none_or(|n| n.0.is_empty()) {
            data.insert("namespace".into(), ByteString(key.namespace.clone().into_bytes()));
        }
        if data.get("token").is_none_or(|t| t.0.is_empty()) {
            let signed = signer.sign_legacy(&key.namespace, name, uid, &key.name);
            let token = signed.inspect_err(|error| tracing::error!(%error, "cannot sign a token")).ok()?;
            data.insert("token".into(), ByteString(token.into_bytes()));
        }
        let annotations = filled.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT.into(), name.into());
        annotations.insert(ACCOUNT_UID.into(), uid.into());
        (filled != *secret).then_some(filled)
    }

    async fn delete(&self, key: &Key, secret: &Secret) -> Result<(), kube::Error> {
        let preconditions = Preconditions { uid: secret.metadata.uid.clone(), ..Preconditions::default() };
        let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        self.ctx.api::<Secret>(&key.namespace).delete(&key.name, &options).await.map(drop)
    }
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    let annotations = secret.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn empty_annotations_are_none() {
        let secret = json!({"metadata": {"annotations": {ACCOUNT: "s", ACCOUNT_UID: ""}}});
        let secret: Secret = serde_json::from_value(secret).expect("secret");
        assert_eq!(annotation(&secret, ACCOUNT), Some("s"));
        assert_eq!(annotation(&secret, ACCOUNT_UID), None);
        assert_eq!(annotation(&Secret::default(), ACCOUNT), None);
    }
}
