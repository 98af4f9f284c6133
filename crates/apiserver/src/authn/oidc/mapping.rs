//! Claims to users: which claims, or which expressions over them, are the name, the groups and the rest.

use super::expression::{Input, Rule, strings};
use crate::authn::{AUTHENTICATED, CREDENTIAL_ID, Refusal, UserInfo};
use api::Cause;
use serde_json::{Value, json};

/// Where one part of a user comes from.
enum Source {
    Claim { claim: String, prefix: String },
    Expression(Rule),
}

/// What a token must fulfil.
enum Condition {
    Claim { claim: String, value: String },
    Expression(Rule),
}

/// The mapping of an issuer's tokens.
pub struct Mapping {
    username: Option<Source>,
    groups: Option<Source>,
    uid: Option<Source>,
    extra: Vec<(String, Rule)>,
    claim_rules: Vec<Condition>,
    user_rules: Vec<Rule>,
}

impl Mapping {
    /// Reads the mappings and rules of an entry of the configuration.
    pub fn new(entry: &Value, path: &str, causes: &mut Vec<Cause>) -> Self {
        let (mappings, at) = (&entry["claimMappings"], format!("{path}.claimMappings"));
        check_email(entry, &at, causes);
        Self {
            username: source(&mappings["username"], &format!("{at}.username"), true, true, causes),
            groups: source(&mappings["groups"], &format!("{at}.groups"), false, true, causes),
            uid: source(&mappings["uid"], &format!("{at}.uid"), false, false, causes),
            extra: extra(&mappings["extra"], &format!("{at}.extra"), causes),
            claim_rules: claim_rules(&entry["claimValidationRules"], &format!("{path}.claimValidationRules"), causes),
            user_rules: user_rules(&entry["userValidationRules"], &format!("{path}.userValidationRules"), causes),
        }
    }

    /// The user that the claims of a verified token speak for.
    pub fn user(&self, claims: &Value) -> Result<UserInfo, Refusal> {
        let mut user = UserInfo { name: self.name(claims)?, ..UserInfo::default() };
        user.groups = self.groups(claims)?;
        user.uid = self.uid(claims)?;
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            user.extra.insert(CREDENTIAL_ID.into(), vec![format!("JTI={id}")]);
        }
        for (key, rule) in &self.extra {
            let failed = |why| format!("oidc: error evaluating extra claim expression: {}: {why}", rule.text());
            let values = rule.evaluate(claims).and_then(|v| strings(&v)).map_err(failed)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        self.check_claims(claims)?;
        self.check_user(&user)?;
        if !user.is_in(AUTHENTICATED) {
            user.groups.push(AUTHENTICATED.into());
        }
        Ok(user)
    }

    fn name(&self, claims: &Value) -> Result<String, Refusal> {
        match &self.username {
            Some(Source::Expression(rule)) => {
                let failed = |why: String| format!("oidc: error evaluating username claim expression: {why}");
                let value = rule.evaluate(claims).map_err(failed)?;
                let name =
                    value.as_str().ok_or_else(|| failed("username claim expression must return a string".into()))?;
                if name.is_empty() {
                    return Err("oidc: empty username via CEL expression is not allowed".into());
                }
                Ok(name.to_owned())
            }
            Some(Source::Claim { claim, prefix }) => {
                let name =
                    text(claims, claim).map_err(|why| format!("oidc: parse username claims {claim:?}: {why}"))?;
                if claim == "email" {
                    match claims.get("email_verified") {
                        None | Some(Value::Bool(true)) => {}
                        Some(Value::Bool(false)) => return Err("oidc: email not verified".into()),
                        Some(_) => return Err("oidc: parse 'email_verified' claim: it is no boolean".into()),
                    }
                }
                Ok(format!("{prefix}{name}"))
            }
            None => Err("oidc: no username".into()),
        }
    }

    fn groups(&self, claims: &Value) -> Result<Vec<String>, Refusal> {
        match &self.groups {
            None => Ok(Vec::new()),
            Some(Source::Claim { claim, prefix }) => {
                let Some(value) = claims.get(claim) else { return Ok(Vec::new()) };
                let list = strings(value).map_err(|why| format!("oidc: parse groups claim {claim:?}: {why}"))?;
                Ok(list.into_iter().map(|group| format!("{prefix}{group}")).collect())
            }
            Some(Source::Expression(rule)) => rule
                .evaluate(claims)
                .and_then(|value| strings(&value))
                .map_err(|why| format!("oidc: error evaluating group claim expression: {why}")),
        }
    }

    fn uid(&self, claims: &Value) -> Result<String, Refusal> {
        match &self.uid {
            None => Ok(String::new()),
            Some(Source::Claim { claim, .. }) => {
                text(claims, claim).map_err(|why| format!("oidc: parse uid claim {claim:?}: {why}"))
            }
            Some(Source::Expression(rule)) => {
                let failed = |why: String| format!("oidc: error evaluating uid claim expression: {why}");
                let value = rule.evaluate(claims).map_err(failed)?;
                value
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| failed("uid claim expression must return a string".into()))
            }
        }
    }

    fn check_claims(&self, claims: &Value) -> Result<(), Refusal> {
        for condition in &self.claim_rules {
            match condition {
                Condition::Claim { claim, value } => match claims.get(claim) {
                    None => return Err(format!("oidc: required claim {claim} not present in ID token")),
                    Some(Value::String(got)) if got == value => {}
                    Some(Value::String(got)) => {
                        let why = format!("value does not match. Got = {got}, want = {value}");
                        return Err(format!("oidc: required claim {claim} {why}"));
                    }
                    Some(_) => return Err(format!("oidc: parse claim {claim}: it is no string")),
                },
                Condition::Expression(rule) => rule
                    .check(claims)
                    .map_err(|why| format!("oidc: error evaluating claim validation expression: {why}"))?,
            }
        }
        Ok(())
    }

    fn check_user(&self, user: &UserInfo) -> Result<(), Refusal> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let shown = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        let failed = |why| format!("oidc: error evaluating user info validation rule: {why}");
        self.user_rules.iter().try_for_each(|rule| rule.check(&shown)).map_err(failed)
    }
}

fn text(claims: &Value, claim: &str) -> Result<String, &'static str> {
    let value = claims.get(claim).ok_or("claim not present")?;
    value.as_str().map(str::to_owned).ok_or("it is no string")
}

fn field<'a>(of: &'a Value, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_str).unwrap_or("")
}

fn items(list: &Value) -> impl Iterator<Item = (usize, &Value)> {
    list.as_array().into_iter().flatten().enumerate()
}

fn source(of: &Value, path: &str, required: bool, prefixed: bool, causes: &mut Vec<Cause>) -> Option<Source> {
    let (claim, expression) = (field(of, "claim"), field(of, "expression"));
    let prefix = of.get("prefix").and_then(Value::as_str);
    match (claim, expression) {
        ("", "") if required => causes.push(Cause::required(path, "claim or expression is required")),
        ("", "") => {}
        ("", expression) => {
            if let Some(prefix) = prefix.filter(|_| prefixed) {
                let why = "may not be specified when expression is set";
                causes.push(Cause::invalid(format!("{path}.prefix"), &json!(prefix), why));
            }
            let rule = Rule::compile(expression, "", Input::Claims, &format!("{path}.expression"), causes);
            return rule.map(Source::Expression);
        }
        (claim, "") => {
            if prefixed && prefix.is_none() {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                causes.push(Cause::required(format!("{path}.prefix"), why));
            }
            return Some(Source::Claim { claim: claim.to_owned(), prefix: prefix.unwrap_or("").to_owned() });
        }
        _ => causes.push(Cause::invalid(path, &json!(""), "claim and expression can't both be set")),
    }
    None
}

/// An address that nobody has verified is no name: who uses it must look at whether it was.
fn check_email(entry: &Value, path: &str, causes: &mut Vec<Cause>) {
    const VERIFIED: &str = "claims.email_verified";
    let name = field(&entry["claimMappings"]["username"], "expression");
    let uses_email = name
        .match_indices("claims.email")
        .any(|(at, found)| !name[at + found.len()..].starts_with(|c: char| c == '_' || c.is_ascii_alphanumeric()));
    let extra = items(&entry["claimMappings"]["extra"]).map(|(_, e)| field(e, "valueExpression"));
    let rules = items(&entry["claimValidationRules"]).map(|(_, r)| field(r, "expression"));
    if uses_email && !extra.chain(rules).chain([name]).any(|text| text.contains(VERIFIED)) {
        let why = "claims.email_verified must be used in claimMappings.username.expression or \
                   claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is \
                   used in claimMappings.username.expression";
        causes.push(Cause::invalid(format!("{path}.username.expression"), &json!(name), why));
    }
}

fn extra(list: &Value, path: &str, causes: &mut Vec<Cause>) -> Vec<(String, Rule)> {
    let mut out: Vec<(String, Rule)> = Vec::new();
    for (at, item) in items(list) {
        let (path, key) = (format!("{path}[{at}]"), field(item, "key"));
        let at = format!("{path}.key");
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let reserved =
            ["k8s.io", "kubernetes.io"].into_iter().any(|d| domain == d || domain.ends_with(&format!(".{d}")));
        match () {
            () if key.is_empty() => causes.push(Cause::required(at, "")),
            () if domain.is_empty() => {
                let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                causes.push(Cause::invalid(at, &json!(key), why));
            }
            () if key != key.to_lowercase() => causes.push(Cause::invalid(at, &json!(key), "must be lowercase")),
            () if reserved => {
                let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                causes.push(Cause::invalid(at, &json!(key), why));
            }
            () if out.iter().any(|(k, _)| k == key) => causes.push(Cause::duplicate(at, &json!(key))),
            () => {}
        }
        let (expression, at) = (field(item, "valueExpression"), format!("{path}.valueExpression"));
        if expression.is_empty() {
            causes.push(Cause::required(at, ""));
        } else if let Some(rule) = Rule::compile(expression, "", Input::Claims, &at, causes) {
            out.push((key.to_owned(), rule));
        }
    }
    out
}

fn claim_rules(list: &Value, path: &str, causes: &mut Vec<Cause>) -> Vec<Condition> {
    let mut out = Vec::new();
    for (at, item) in items(list) {
        let path = format!("{path}[{at}]");
        match (field(item, "claim"), field(item, "expression")) {
            ("", "") => causes.push(Cause::required(path, "claim or expression is required")),
            (claim, "") => {
                out.push(Condition::Claim { claim: claim.to_owned(), value: field(item, "requiredValue").to_owned() });
            }
            ("", expression) => {
                let at = format!("{path}.expression");
                let rule = Rule::compile_condition(expression, field(item, "message"), Input::Claims, &at, causes);
                out.extend(rule.map(Condition::Expression));
            }
            (claim, _) => {
                causes.push(Cause::invalid(path, &json!(claim), "claim and expression can't both be set"));
            }
        }
    }
    out
}

fn user_rules(list: &Value, path: &str, causes: &mut Vec<Cause>) -> Vec<Rule> {
    let mut out = Vec::new();
    for (at, item) in items(list) {
        let (at, expression) = (format!("{path}[{at}].expression"), field(item, "expression"));
        if expression.is_empty() {
            causes.push(Cause::required(at, ""));
            continue;
        }
        out.extend(Rule::compile_condition(expression, field(item, "message"), Input::User, &at, causes));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(entry: Value) -> Mapping {
        let mut causes = Vec::new();
        let mapping = Mapping::new(&entry, "jwt[0]", &mut causes);
        assert!(causes.is_empty(), "{causes:?}");
        mapping
    }

    #[test]
    fn claims_become_users() {
        let mapping = mapping(json!({"claimMappings": {"username": {"claim": "email", "prefix": "p:"},
            "groups": {"claim": "roles", "prefix": "g:"}, "uid": {"claim": "sub"}},
            "claimValidationRules": [{"claim": "hd", "requiredValue": "x"}]}));
        let check = |claims: Value, want: Result<(&str, &[&str]), &str>| {
            let got = mapping.user(&claims);
            match (got, want) {
                (Ok(user), Ok((name, groups))) => assert_eq!(
                    (user.name.as_str(), user.groups),
                    (name, groups.iter().map(|g| (*g).to_owned()).collect())
                ),
                (Err(why), Err(want)) => assert_eq!(why, want),
                (got, want) => panic!("{got:?} instead of {want:?}"),
            }
        };
        let ok = json!({"email": "a", "roles": ["r"], "sub": "1", "hd": "x", "jti": "j"});
        check(ok.clone(), Ok(("p:a", &["g:r", "system:authenticated"])));
        check(
            json!({"email": "a", "roles": "r", "sub": "1", "hd": "x"}),
            Ok(("p:a", &["g:r", "system:authenticated"])),
        );
        let mut unverified = ok.clone();
        unverified["email_verified"] = false.into();
        check(unverified, Err("oidc: email not verified"));
        check(json!({"sub": "1"}), Err("oidc: parse username claims \"email\": claim not present"));
        let mut other = ok.clone();
        other["hd"] = "y".into();
        check(other, Err("oidc: required claim hd value does not match. Got = y, want = x"));
        assert_eq!(mapping.user(&ok).expect("user").extra[CREDENTIAL_ID], ["JTI=j"]);
    }
}
