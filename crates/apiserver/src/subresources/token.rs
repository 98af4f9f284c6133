//! `serviceaccounts/token`: a bound token for a service account.

use crate::admission::{self, Attributes, Operation};
use crate::body::Body;
use crate::handlers::{Request, answer, options};
use crate::registry::decode::{Expected, body};
use crate::registry::{Resource, facts::BuiltIn, meta as system};
use crate::server::ApiServer;
use api::{Cause, Gvk, Object, Status, meta};
use http::Response;
use jiff::{SignedDuration, Timestamp};
use merge::Write;
use pki::TokenClaims;
use pki::token::{Binding, Reference};
use serde_json::{Value, json};

const SCHEMA: &str = "io.k8s.api.authentication.v1.TokenRequest";
const MIN_SECONDS: i64 = 600;
const DEFAULT_SECONDS: i64 = 3600;
/// What kubelets ask for pods that may hold on to a token (see admission).
const WARN_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Issues a token.
pub async fn handle(server: &ApiServer, request: &Request, accounts: &Resource) -> Result<Response<Body>, Status> {
    let options = options::write_options(request, "CreateOptions", "token")?;
    let gvk = Gvk::new("authentication.k8s.io", "v1", "TokenRequest");
    let mut token_request = body(request, &Expected::new(SCHEMA, &gvk)).await?;
    let (namespace, name) = (&request.info.namespace, &request.info.name);
    default(server, &mut token_request);
    let track = Write {
        old: &system::zero(SCHEMA),
        manager: &options.manager,
        time: &system::time(request.now),
        subresource: "token",
        schema: SCHEMA,
    };
    let mut shown = token_request.clone();
    shown["apiVersion"] = gvk.api_version().into();
    shown["kind"] = gvk.kind.as_str().into();
    if let Some(spec) = shown.get_mut("spec").and_then(Value::as_object_mut) {
        let audiences = token_request["spec"].get("audiences").cloned().unwrap_or_default();
        spec.insert("audiences".into(), audiences);
    }
    merge::update_managed_fields(&track, &mut shown, &BuiltIn);
    let stored = accounts.store.get(namespace, name).await?.ok_or_else(|| accounts.not_found(name))?;
    let account = stored.object()?;
    check_name(&token_request, request)?;
    let (asked, own) = (meta::uid(&token_request), meta::uid(&account));
    if !asked.is_empty() && asked != own {
        let why = format!("the UID in the token request ({asked}) does not match the UID of the service account ({own})");
        return Err(Status::conflict("authentication.k8s.io", "TokenRequest", name, &why));
    }
    let attributes = Attributes {
        request,
        resource: accounts,
        operation: Operation::Create,
        subresource: "token",
        namespace,
        name,
        old: None,
        dry_run: options.dry_run,
        options: None,
        reinvocation: None,
    };
    admission::admit(server, &attributes, &mut token_request).await?;
    validate(&token_request)?;
    admission::validate(server, &attributes, Some(&token_request)).await?;
    let seconds = token_request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    if token_request.pointer("/spec/audiences").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        token_request["spec"]["audiences"] = json!(server.config().api_audiences);
    }
    let binding = bind(server, &token_request, namespace, &account).await?;
    let claims = claims(server, &token_request, binding, seconds, request.now);
    let token = server.config().sa_key.sign(&claims).map_err(Status::internal)?;
    // A client is told the time it asked for even when the token itself lives longer.
    let expiration = request.now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(request.now);
    let mut answer_object = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "uid": meta::uid(&account),
            "creationTimestamp": system::time(request.now)},
        "spec": token_request["spec"],
        "status": {"token": token, "expirationTimestamp": system::time(expiration)},
    });
    if answer_object["spec"].get("boundObjectRef").is_none() {
        answer_object["spec"]["boundObjectRef"] = Value::Null;
    }
    if let Some(managed) = shown.pointer("/metadata/managedFields") {
        answer_object["metadata"]["managedFields"] = managed.clone();
    }
    answer::plain(request, 201, &answer_object)
}

fn default(_server: &ApiServer, token_request: &mut Object) {
    let spec = meta::field_mut(token_request, "spec");
    spec.entry("expirationSeconds").or_insert_with(|| DEFAULT_SECONDS.into());
}

fn check_name(token_request: &Object, request: &Request) -> Result<(), Status> {
    let name = meta::name(token_request);
    if !name.is_empty() && name != request.info.name {
        let cause = Cause::invalid("metadata.name", &json!(name), "must match the service account name if specified");
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", &request.info.name, &[cause]));
    }
    let namespace = meta::namespace(token_request);
    if !namespace.is_empty() && namespace != request.info.namespace {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(why));
    }
    Ok(())
}

fn validate(token_request: &Object) -> Result<(), Status> {
    let seconds = token_request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS);
    let why = match seconds {
        s if s < MIN_SECONDS => "may not specify a duration less than 10 minutes",
        s if s > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let cause = Cause::invalid("spec.expirationSeconds", &json!(seconds), why);
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[cause]))
}

/// The objects the token is bound to, which must exist.
async fn bind(
    server: &ApiServer,
    token_request: &Object,
    namespace: &str,
    account: &Object,
) -> Result<Binding, Status> {
    let reference = |object: &Object| Reference { name: meta::name(object).into(), uid: meta::uid(object).into() };
    let mut binding =
        Binding { namespace: namespace.into(), serviceaccount: reference(account), ..Binding::default() };
    let Some(wanted) = token_request.pointer("/spec/boundObjectRef").filter(|r| r.is_object()) else {
        return Ok(binding);
    };
    let text = |key: &str| wanted.get(key).and_then(Value::as_str).unwrap_or("");
    let (resource, namespace) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => ("pods", namespace),
        ("v1", "Secret") => ("secrets", namespace),
        ("v1", "Node") => ("nodes", ""),
        (version, kind) => {
            let gv = api::GroupVersion::parse(version).unwrap_or_else(|| api::GroupVersion::new("", ""));
            let gvk = format!("{}/{}, Kind={kind}", gv.group, gv.version);
            return Err(Status::bad_request(format!("cannot bind token to object of type {gvk}")));
        }
    };
    let object = object(server, resource, namespace, text("name")).await?;
    if !text("uid").is_empty() && text("uid") != meta::uid(&object) {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. \
             The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict("", text("kind"), text("name"), &why));
    }
    match resource {
        "pods" => {
            check_pod(&object, account)?;
            if let Some(node) = object.pointer("/spec/nodeName").and_then(Value::as_str).filter(|n| !n.is_empty()) {
                let found = self::object(server, "nodes", "", node).await.ok();
                binding.node = Some(Reference { name: node.into(), uid: found.map_or(String::new(), |n| meta::uid(&n).into()) });
            }
            binding.pod = Some(reference(&object));
        }
        "secrets" => binding.secret = Some(reference(&object)),
        _ => binding.node = Some(reference(&object)),
    }
    Ok(binding)
}

async fn object(server: &ApiServer, resource: &str, namespace: &str, name: &str) -> Result<Object, Status> {
    let store = server.store("", resource).ok_or_else(Status::no_such_path)?;
    let stored = store.get(namespace, name).await?;
    stored.ok_or_else(|| Status::not_found("", resource, name))?.object()
}

fn check_pod(pod: &Object, account: &Object) -> Result<(), Status> {
    let runs_as = pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or("");
    if runs_as == meta::name(account) {
        return Ok(());
    }
    let why = format!("cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.", meta::name(account));
    Err(Status::bad_request(why))
}

fn claims(server: &ApiServer, token_request: &Object, mut binding: Binding, seconds: i64, now: Timestamp) -> TokenClaims {
    let audiences = token_request.pointer("/spec/audiences").and_then(Value::as_array);
    let aud: Vec<String> = audiences.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let iat = now.as_second();
    let mut exp = iat + seconds;
    // Tokens for the API that pods hold may be extended; whoever still uses them after their time is warned.
    if seconds == WARN_SECONDS && binding.pod.is_some() && aud == server.config().api_audiences {
        binding.warnafter = Some(exp);
        exp = iat + EXTENDED_SECONDS;
    }
    let account = &binding.serviceaccount.name;
    TokenClaims {
        aud,
        exp,
        iat,
        iss: server.config().issuer.clone(),
        jti: uuid::Uuid::new_v4().to_string(),
        nbf: iat,
        sub: format!("system:serviceaccount:{}:{account}", binding.namespace),
        kubernetes: binding,
    }
}
