//! CertificateSigningRequests: approves kubelets' client certificates, signs what is approved for the signers of
//! `kubernetes.io`, and removes requests that are over.
//!
//! A certificate of `kubelet-serving` or `kube-apiserver-client` is never approved here: people do that.

use crate::context::{Context, synced};
use api::k8s::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use api::k8s::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use informer::{Controller, Error, Informer, Key, Reconcile, Requeue, WorkQueue};
use k8s_openapi::ByteString;
use kube::api::{DeleteParams, PostParams};
use pki::{Ca, CertificateRequest, Usage};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const HOUR: i64 = 3600;
/// How long a certificate lasts unless its request asks for less, and the least it can ask for.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
const LEAST: Duration = Duration::from_secs(600);

struct Certificates {
    ctx: Context,
    requests: Informer<CertificateSigningRequest>,
    ca: Arc<Ca>,
}

pub(crate) async fn run(ctx: Context) {
    let Some(ca) = ctx.config().signing_ca.clone() else { return };
    let queue = WorkQueue::new();
    let requests = ctx.informer::<CertificateSigningRequest>();
    let enqueue = queue.clone();
    requests.on_event(move |event| enqueue.add(Key::of(event.object().as_ref())));
    synced!(requests);
    let reconciler = Certificates { ctx: ctx.clone(), requests, ca };
    Controller::new("certificates", queue, reconciler).run(ctx.shutdown()).await;
}

impl Reconcile for Certificates {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Requeue, Error> {
        let Some(request) = self.requests.get_key(key) else { return Ok(Requeue::Done) };
        let left = seconds_left(&request);
        if left <= 0 {
            let gone =
                self.ctx.cluster_api::<CertificateSigningRequest>().delete(&key.name, &DeleteParams::default()).await;
            return match gone.map_err(Error::from) {
                Err(error) if error.code() != 404 => Err(error),
                _ => Ok(Requeue::Done),
            };
        }
        match (condition(&request, "Approved"), condition(&request, "Denied"), condition(&request, "Failed")) {
            _ if certificate(&request).is_some() => {}
            (Some(_), None, None) => self.sign(&request).await?,
            (None, None, _) => {
                if !self.approve(&request).await? {
                    // Whether it may be approved hangs on roles, which are not watched here.
                    return Ok(Requeue::Again);
                }
            }
            _ => {}
        }
        Ok(Requeue::After(Duration::from_secs(left.unsigned_abs())))
    }
}

impl Certificates {
    /// Approves a kubelet's client certificate if its requestor may have it; `false` when that is not so yet.
    async fn approve(&self, request: &CertificateSigningRequest) -> Result<bool, Error> {
        let Ok(asked) = CertificateRequest::parse(&request.spec.request.0) else { return Ok(true) };
        if request.spec.signer_name != KUBELET_CLIENT || kubelet_client(&asked, &usages(request)).is_err() {
            return Ok(true);
        }
        let own = request.spec.username.as_deref() == Some(asked.common_name.as_str());
        let ways = [
            (own, "selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
            (true, "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
        ];
        for (_, subresource, message) in ways.into_iter().filter(|(applies, ..)| *applies) {
            if self.may(request, subresource).await? {
                self.write("approval", request, with_condition(request, "Approved", "AutoApproved", message)).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn may(&self, request: &CertificateSigningRequest, subresource: &str) -> Result<bool, Error> {
        let attributes = ResourceAttributes {
            group: Some("certificates.k8s.io".into()),
            resource: Some("certificatesigningrequests".into()),
            verb: Some("create".into()),
            subresource: Some(subresource.into()),
            version: Some("*".into()),
            ..Default::default()
        };
        let spec = &request.spec;
        let spec = SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(attributes),
            ..Default::default()
        };
        let review = SubjectAccessReview { spec, ..Default::default() };
        let review = self.ctx.cluster_api::<SubjectAccessReview>().create(&PostParams::default(), &review).await?;
        Ok(review.status.is_some_and(|status| status.allowed))
    }

    async fn sign(&self, request: &CertificateSigningRequest) -> Result<(), Error> {
        let signer = request.spec.signer_name.as_str();
        if ![CLIENT, KUBELET_CLIENT, KUBELET_SERVING].contains(&signer) {
            return Ok(());
        }
        let pem = &request.spec.request.0;
        let asked = CertificateRequest::parse(pem).map_err(|e| Error::Terminal(format!("unable to parse csr: {e}")))?;
        if let Err(why) = verify(signer, &asked, &usages(request)) {
            return self
                .write("status", request, with_condition(request, "Failed", "SignerValidationFailure", &why))
                .await;
        }
        let signed = self.ca.sign_request(&String::from_utf8_lossy(pem), &certified(request), lifetime(request));
        let signed = signed.map_err(|e| Error::Terminal(format!("error auto signing csr: {e}")))?;
        let status = request.status.clone().unwrap_or_default();
        let status = CertificateSigningRequestStatus { certificate: Some(ByteString(signed.into_bytes())), ..status };
        self.write("status", request, status).await
    }

    async fn write(
        &self,
        subresource: &str,
        request: &CertificateSigningRequest,
        status: CertificateSigningRequestStatus,
    ) -> Result<(), Error> {
        let wanted = CertificateSigningRequest { status: Some(status), ..request.clone() };
        let name = request.metadata.name.as_deref().unwrap_or("");
        let api = self.ctx.cluster_api::<CertificateSigningRequest>();
        api.replace_subresource(subresource, name, &PostParams::default(), &wanted).await?;
        Ok(())
    }
}

fn condition<'a>(request: &'a CertificateSigningRequest, kind: &str) -> Option<&'a CertificateSigningRequestCondition> {
    request.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let bytes = request.status.as_ref()?.certificate.as_ref()?;
    Some(bytes.0.as_slice()).filter(|b| !b.is_empty())
}

fn with_condition(
    request: &CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: &str,
) -> CertificateSigningRequestStatus {
    let mut status = request.status.clone().unwrap_or_default();
    status.conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        ..Default::default()
    });
    status
}

fn usages(request: &CertificateSigningRequest) -> BTreeSet<&str> {
    request.spec.usages.iter().flatten().map(String::as_str).collect()
}

/// What the certificate is for: what was asked, which has been verified.
fn certified(request: &CertificateSigningRequest) -> Vec<Usage> {
    let usage = |text: &str| match text {
        "server auth" => Some(Usage::Server),
        "client auth" => Some(Usage::Client),
        "digital signature" => Some(Usage::DigitalSignature),
        "key encipherment" => Some(Usage::KeyEncipherment),
        _ => None,
    };
    usages(request).into_iter().filter_map(usage).collect()
}

fn lifetime(request: &CertificateSigningRequest) -> Duration {
    let asked = request.spec.expiration_seconds.and_then(|s| u64::try_from(s).ok());
    asked.map_or(LIFETIME, |seconds| Duration::from_secs(seconds).clamp(LEAST, LIFETIME))
}

/// When a request is to go: an hour after it was decided and answered, a day after it was forgotten.
fn seconds_left(request: &CertificateSigningRequest) -> i64 {
    let unanswered = if certificate(request).is_some() { HOUR } else { 24 * HOUR };
    let deadlines = [("Denied", HOUR), ("Failed", HOUR), ("Approved", unanswered)].into_iter();
    let decided =
        deadlines.filter_map(|(kind, after)| Some((condition(request, kind)?.last_update_time.as_ref()?.0, after)));
    let created = request.metadata.creation_timestamp.iter().map(|t| (t.0, 24 * HOUR));
    let pending = request.status.as_ref().is_none_or(|s| s.conditions.iter().flatten().next().is_none());
    let now = jiff::Timestamp::now().as_second();
    let ends = decided.chain(created.filter(|_| pending)).map(|(since, after)| since.as_second() + after - now);
    ends.min().unwrap_or(24 * HOUR)
}

/// Whether a request is one that the signer is for.
fn verify(signer: &str, asked: &CertificateRequest, usages: &BTreeSet<&str>) -> Result<(), String> {
    match signer {
        KUBELET_CLIENT => kubelet_client(asked, usages),
        KUBELET_SERVING => kubelet_serving(asked, usages),
        _ => client(usages),
    }
}

fn client(usages: &BTreeSet<&str>) -> Result<(), String> {
    let known = ["client auth", "digital signature", "key encipherment"];
    if let Some(odd) = usages.iter().find(|u| !known.contains(u)) {
        return Err(format!("invalid usage for client certificate: {odd}"));
    }
    if usages.contains("client auth") {
        Ok(())
    } else {
        Err("missing required usage for client certificate: client auth".into())
    }
}

fn kubelet_client(asked: &CertificateRequest, usages: &BTreeSet<&str>) -> Result<(), String> {
    let CertificateRequest { dns_names, emails, ip_addresses, uris, .. } = asked;
    refuse(&[
        (asked.organizations != ["system:nodes"], "subject organization is not system:nodes"),
        (*dns_names > 0, "DNS subjectAltNames are not allowed"),
        (*emails > 0, "Email subjectAltNames are not allowed"),
        (*ip_addresses > 0, "IP subjectAltNames are not allowed"),
        (*uris > 0, "URI subjectAltNames are not allowed"),
        (!asked.common_name.starts_with("system:node:"), "subject common name does not begin with system:node:"),
    ])?;
    exactly(usages, "client auth")
}

fn kubelet_serving(asked: &CertificateRequest, usages: &BTreeSet<&str>) -> Result<(), String> {
    refuse(&[
        (asked.organizations != ["system:nodes"], "subject organization is not system:nodes"),
        (asked.dns_names + asked.ip_addresses == 0, "DNS or IP subjectAltName is required"),
        (asked.emails > 0, "Email subjectAltNames are not allowed"),
        (asked.uris > 0, "URI subjectAltNames are not allowed"),
    ])?;
    exactly(usages, "server auth")?;
    refuse(&[(!asked.common_name.starts_with("system:node:"), "subject common name does not begin with system:node:")])
}

fn refuse(rules: &[(bool, &str)]) -> Result<(), String> {
    rules.iter().find(|(broken, _)| *broken).map_or(Ok(()), |(_, why)| Err((*why).to_owned()))
}

/// Digital signature, this usage, and for RSA keys key encipherment: no more and no less.
fn exactly(usages: &BTreeSet<&str>, usage: &str) -> Result<(), String> {
    let mut wanted = BTreeSet::from(["digital signature", "key encipherment", usage]);
    let (all, list) = (*usages == wanted, wanted.iter().copied().collect::<Vec<_>>().join(" "));
    wanted.remove("key encipherment");
    if all || *usages == wanted { Ok(()) } else { Err(format!("usages did not match [{list}]")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::machinery::apis::meta::v1::{ObjectMeta, Time};

    #[test]
    fn requests_are_verified() {
        let node = CertificateRequest {
            common_name: "system:node:n".into(),
            organizations: vec!["system:nodes".into()],
            ..Default::default()
        };
        let check = |signer: &str, asked: &CertificateRequest, usages: &[&str], want: Result<(), &str>| {
            let got = verify(signer, asked, &usages.iter().copied().collect());
            assert_eq!(got, want.map_err(str::to_owned), "{signer} {asked:?} {usages:?}");
        };
        let (signature, encipherment) = ("digital signature", "key encipherment");
        check(KUBELET_CLIENT, &node, &[signature, "client auth"], Ok(()));
        check(
            KUBELET_CLIENT,
            &node,
            &["client auth"],
            Err("usages did not match [client auth digital signature key encipherment]"),
        );
        check(
            KUBELET_CLIENT,
            &CertificateRequest { ip_addresses: 1, ..node.clone() },
            &[],
            Err("IP subjectAltNames are not allowed"),
        );
        check(KUBELET_SERVING, &node, &[signature, "server auth"], Err("DNS or IP subjectAltName is required"));
        let serving = CertificateRequest { dns_names: 1, ..node.clone() };
        check(KUBELET_SERVING, &serving, &[signature, encipherment, "server auth"], Ok(()));
        let other = CertificateRequest { organizations: vec!["x".into()], ..serving };
        check(KUBELET_SERVING, &other, &[], Err("subject organization is not system:nodes"));
        check(CLIENT, &other, &[signature, "client auth"], Ok(()));
        check(CLIENT, &other, &["server auth"], Err("invalid usage for client certificate: server auth"));
        check(CLIENT, &other, &[signature], Err("missing required usage for client certificate: client auth"));
    }

    #[test]
    fn requests_end() {
        let now = jiff::Timestamp::now();
        let ago = |seconds: i64| Some(Time(now - jiff::SignedDuration::from_secs(seconds)));
        let check = |created: i64, decided: Option<(&str, i64)>, issued: bool, over: bool| {
            let mut request = CertificateSigningRequest {
                metadata: ObjectMeta { creation_timestamp: ago(created), ..Default::default() },
                ..Default::default()
            };
            if let Some((kind, since)) = decided {
                let mut status = with_condition(&request, kind, "r", "m");
                status.conditions.iter_mut().flatten().for_each(|c| c.last_update_time = ago(since));
                status.certificate = issued.then(|| ByteString(b"x".to_vec()));
                request.status = Some(status);
            }
            assert_eq!(seconds_left(&request) <= 0, over, "{created} {decided:?} {issued}");
        };
        check(HOUR, None, false, false);
        check(25 * HOUR, None, false, true);
        check(2 * HOUR, Some(("Denied", HOUR + 1)), false, true);
        check(2 * HOUR, Some(("Approved", HOUR + 1)), false, false);
        check(2 * HOUR, Some(("Approved", HOUR + 1)), true, true);
        check(30 * HOUR, Some(("Approved", 60)), true, false);
    }

    #[test]
    fn lifetimes_are_bounded() {
        for (asked, want) in
            [(None, 365 * 24 * 3600), (Some(60), 600), (Some(7200), 7200), (Some(i32::MAX), 365 * 24 * 3600)]
        {
            let mut request = CertificateSigningRequest::default();
            request.spec.expiration_seconds = asked;
            assert_eq!(lifetime(&request).as_secs(), want, "{asked:?}");
        }
    }
}
