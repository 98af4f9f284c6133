//! Kinds that are only created and never stored: access reviews, token reviews, and `bindings`.

use super::{Request, answer, options, review_checks};
use crate::authn::{self, UserInfo};
use crate::authz::{self, Attributes};
use crate::body::Body;
use crate::media::{self, Shape};
use crate::registry::decode::{Expected, body};
use crate::registry::{facts::BuiltIn, meta as system};
use crate::server::ApiServer;
use crate::subresources;
use api::selector::FieldSelector;
use api::{Cause, Gvk, Object, Status, meta};
use http::Response;
use merge::Write;
use serde_json::{Value, json};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Answers a review; `None` when the request is for something else.
pub async fn handle(server: &ApiServer, request: &Request) -> Result<Option<Response<Body>>, Status> {
    let info = &request.info;
    let kind = match (info.group.as_str(), info.resource.as_str()) {
        ("", "bindings") => "Binding",
        ("", "componentstatuses") => return component_statuses(request).map(Some),
        (AUTHENTICATION, "tokenreviews") => "TokenReview",
        (AUTHENTICATION, "selfsubjectreviews") => "SelfSubjectReview",
        (AUTHORIZATION, "subjectaccessreviews") => "SubjectAccessReview",
        (AUTHORIZATION, "localsubjectaccessreviews") => "LocalSubjectAccessReview",
        (AUTHORIZATION, "selfsubjectaccessreviews") => "SelfSubjectAccessReview",
        (AUTHORIZATION, "selfsubjectrulesreviews") => "SelfSubjectRulesReview",
        _ => return Ok(None),
    };
    if info.version != "v1" {
        return Err(Status::no_such_path());
    }
    if request.method != http::Method::POST || !info.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    if request.media()?.shape == Shape::Table {
        return Err(media::not_acceptable());
    }
    if kind == "Binding" {
        let pods = server.registry().get("", "v1", "pods").ok_or_else(Status::no_such_path)?;
        return subresources::binding::handle(server, request, &pods).await.map(Some);
    }
    let options = options::write_options(request, "CreateOptions", "")?;
    let gvk = Gvk::new(&info.group, "v1", kind);
    let schema = schema::schema_name(&info.group, "v1", kind).ok_or_else(Status::no_such_path)?;
    let mut review = body(request, &Expected::new(schema, &gvk)).await?;
    review["apiVersion"] = gvk.api_version().into();
    review["kind"] = kind.into();
    meta::metadata_mut(&mut review);
    let time = system::time(request.now);
    let old = system::zero(schema);
    if kind != "SelfSubjectReview" {
        let write = Write { old: &old, manager: &options.manager, time: &time, subresource: "", schema };
        merge::update_managed_fields(&write, &mut review, &BuiltIn);
    }
    match kind {
        "TokenReview" => token(server, request, &mut review).await?,
        "SelfSubjectReview" => {
            meta::set(&mut review, "creationTimestamp", time);
            review["status"] = json!({"userInfo": user_object(&request.user)});
        }
        "SelfSubjectRulesReview" => rules(server, request, &mut review)?,
        _ => access(server, request, &mut review, kind).await?,
    }
    answer::plain(request, 201, &review).map(Some)
}

fn component_statuses(request: &Request) -> Result<Response<Body>, Status> {
    if request.method != http::Method::GET {
        return Err(Status::method_not_allowed());
    }
    request.warn("v1 ComponentStatus is deprecated in v1.19+");
    if !request.info.name.is_empty() {
        return Err(Status::not_found("", "componentstatuses", &request.info.name));
    }
    let list = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": []});
    answer::plain(request, 200, &list)
}

/// A user as reviews show it.
fn user_object(user: &UserInfo) -> Value {
    let mut out = json!({});
    if !user.name.is_empty() {
        out["username"] = user.name.as_str().into();
    }
    if !user.uid.is_empty() {
        out["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        out["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(user.extra);
    }
    out
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

async fn token(server: &ApiServer, request: &Request, review: &mut Object) -> Result<(), Status> {
    let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or("").to_owned();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = strings(review.pointer("/spec/audiences"));
    review["status"] = match authn::authenticate_token(server, request, &token, &audiences).await {
        Ok((user, audiences)) => {
            json!({"authenticated": true, "user": user_object(&user), "audiences": audiences})
        }
        Err(why) => json!({"user": {}, "error": why}),
    };
    Ok(())
}

async fn access(server: &ApiServer, request: &Request, review: &mut Object, kind: &str) -> Result<(), Status> {
    let spec = review.get("spec").cloned().unwrap_or_else(|| json!({}));
    let (resource, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    let present = |value: Option<&Value>| value.is_some_and(Value::is_object);
    let text = |value: Option<&Value>, key: &str| {
        value.and_then(|v| v.get(key)).and_then(Value::as_str).unwrap_or("").to_owned()
    };
    let mut causes = Vec::new();
    match (present(resource), present(path)) {
        (true, true) => causes.push(Cause::invalid(
            "spec.nonResourceAttributes",
            &json!({"Path": text(path, "path"), "Verb": text(path, "verb")}),
            "cannot be specified in combination with resourceAttributes",
        )),
        (false, false) => causes.push(Cause::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    let own = kind == "SelfSubjectAccessReview";
    let user = if own { (*request.user).clone() } else { subject(&spec) };
    if !own && user.name.is_empty() && user.groups.is_empty() {
        causes.push(Cause::invalid("spec.user", &json!(""), "at least one of user or group must be specified"));
    }
    if kind == "LocalSubjectAccessReview" {
        let namespace = text(resource, "namespace");
        if present(path) {
            let shown = json!({"Path": text(path, "path"), "Verb": text(path, "verb")});
            causes.push(Cause::invalid("spec.nonResourceAttributes", &shown, "disallowed on this kind of request"));
        }
        if present(resource) && namespace != request.info.namespace {
            let why = "must match metadata.namespace";
            causes.push(Cause::invalid("spec.resourceAttributes.namespace", &json!(namespace), why));
        }
    }
    if present(resource) {
        causes.extend(review_checks::selectors(resource.unwrap_or(&Value::Null)));
    }
    causes.extend(review_checks::metadata(review, kind));
    if !causes.is_empty() {
        // Upstream names no kind here.
        return Err(Status::invalid(AUTHORIZATION, "", "", &causes));
    }
    let of = |key: &str| text(resource, key);
    let (group, version, namespace, what, sub, name) =
        (of("group"), of("version"), of("namespace"), of("resource"), of("subresource"), of("name"));
    let (verb, url) = (if present(resource) { of("verb") } else { text(path, "verb") }, text(path, "path"));
    let attributes = Attributes {
        user: &user,
        verb: &verb,
        is_resource: present(resource),
        group: &group,
        version: &version,
        namespace: &namespace,
        resource: &what,
        subresource: &sub,
        name: &name,
        path: &url,
        field_selector: "",
        label_selector: "",
    };
    let node = selected_node(resource);
    let decision = authz::decision(server, &attributes, node.as_deref()).await;
    let mut status = json!({"allowed": decision.allowed});
    if decision.denied {
        status["denied"] = true.into();
    }
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    review["status"] = status;
    if kind == "LocalSubjectAccessReview" {
        meta::set(review, "namespace", request.info.namespace.as_str());
    }
    Ok(())
}

/// The node that the field selector of `resourceAttributes` is limited to.
fn selected_node(attributes: Option<&Value>) -> Option<String> {
    let selector = attributes?.get("fieldSelector")?;
    let raw = selector.get("rawSelector").and_then(Value::as_str).unwrap_or("");
    if let Some(node) = FieldSelector::parse(raw).ok().and_then(|s| s.exact("spec.nodeName").map(str::to_owned)) {
        return Some(node);
    }
    let requirements = selector.get("requirements").and_then(Value::as_array).into_iter().flatten();
    let found = requirements.into_iter().find(|r| r["key"] == "spec.nodeName" && r["operator"] == "In")?;
    match found["values"].as_array().map(Vec::as_slice) {
        Some([one]) => one.as_str().map(str::to_owned),
        _ => None,
    }
}

fn subject(spec: &Value) -> UserInfo {
    let text = |key: &str| spec.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let extra = spec.get("extra").and_then(Value::as_object).into_iter().flatten();
    let extra = extra.map(|(k, v)| (k.to_lowercase(), strings(Some(v)))).collect();
    UserInfo { name: text("user"), uid: text("uid"), groups: strings(spec.get("groups")), extra }
}

fn rules(server: &ApiServer, request: &Request, review: &mut Object) -> Result<(), Status> {
    let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or("").to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (mut resource, mut other) = (Vec::new(), Vec::new());
    let (found, mut errors) = server.authorizers().rbac.rules_for(&request.user, &namespace);
    for rule in &found {
        if !rule.non_resource_urls.is_empty() {
            other.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
            continue;
        }
        let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
        if !rule.resource_names.is_empty() {
            shown["resourceNames"] = json!(rule.resource_names);
        }
        resource.push(shown);
    }
    if request.user.is_in("system:nodes") {
        errors.insert(0, "node authorizer does not support user rule resolution".into());
    }
    if server.authorizers().has_webhook() {
        errors.push("webhook authorizer does not support user rule resolution".into());
    }
    // The answer is a new review: nothing of the question is in it.
    review["metadata"] = json!({});
    review["spec"] = json!({});
    let mut status = json!({"resourceRules": resource, "nonResourceRules": other, "incomplete": !errors.is_empty()});
    if !errors.is_empty() {
        status["evaluationError"] = errors.join(", ").into();
    }
    review["status"] = status;
    Ok(())
}
