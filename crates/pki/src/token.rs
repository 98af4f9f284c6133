//! Service account tokens: JWTs bound to an audience, a time and (often) an object.

use crate::{Error, files};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;

/// No token of ours is longer; anything longer is refused before it is decoded.
const MAX_TOKEN: usize = 16 * 1024;
/// DER of a P-256 SubjectPublicKeyInfo up to the point.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The claims of a bound token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenClaims {
    /// Who it may be shown to.
    #[serde(default)]
    pub aud: Vec<String>,
    /// End of validity, seconds since 1970.
    pub exp: i64,
    /// Time of issue.
    #[serde(default)]
    pub iat: i64,
    /// Who issued it.
    pub iss: String,
    /// Its id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Binding,
    /// Start of validity.
    #[serde(default)]
    pub nbf: i64,
    /// `system:serviceaccount:<namespace>:<name>`
    pub sub: String,
}

/// The objects a token is bound to: it dies with any of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Namespace of the service account.
    pub namespace: String,
    /// Node the bound pod runs on, or bound itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// Bound pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// Bound secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The service account.
    pub serviceaccount: Reference,
    /// After this time a client that still uses the token is warned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// An object by name and UID.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Name.
    pub name: String,
    /// UID.
    #[serde(default)]
    pub uid: String,
}

/// The key that signs tokens (ES256).
pub struct ServiceAccountKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    key_id: String,
}

impl std::fmt::Debug for ServiceAccountKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAccountKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl ServiceAccountKey {
    /// `sa.key` of a directory, made when missing.
    pub fn load_or_create(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("sa.key");
        let pem = match files::read(&path)? {
            Some(pem) => pem,
            None => {
                let pem = rcgen::KeyPair::generate()?.serialize_pem();
                files::write_private(&path, pem.as_bytes())?;
                pem
            }
        };
        Self::from_pem(&pem)
    }

    /// The key of a PKCS#8 PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let der = rcgen::KeyPair::from_pem(pem)?.serialize_der();
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random)
            .map_err(|e| Error::Key(e.to_string()))?;
        let spki = [&SPKI_PREFIX[..], pair.public_key().as_ref()].concat();
        let digest = ring::digest::digest(&ring::digest::SHA256, &spki);
        Ok(Self { key_id: URL_SAFE_NO_PAD.encode(digest), pair, random })
    }

    /// Signs claims.
    pub fn sign(&self, claims: &TokenClaims) -> Result<String, Error> {
        let payload = serde_json::to_vec(claims).map_err(|_| Error::Token("claims cannot be encoded"))?;
        self.sign_payload(&payload)
    }

    /// Signs the claims of a token that is bound to a secret and never expires (`iss kubernetes/serviceaccount`).
    pub fn sign_legacy(&self, namespace: &str, account: &str, uid: &str, secret: &str) -> Result<String, Error> {
        let claims = json!({
            "iss": "kubernetes/serviceaccount",
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": account,
            "kubernetes.io/serviceaccount/service-account.uid": uid,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
        });
        self.sign_payload(claims.to_string().as_bytes())
    }

    fn sign_payload(&self, payload: &[u8]) -> Result<String, Error> {
        let header = json!({"alg": "ES256", "kid": self.key_id}).to_string();
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(&self.random, token.as_bytes()).map_err(|e| Error::Key(e.to_string()))?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// The payload of a token whose signature is ours; times, audience and bindings are the caller's to check.
    pub fn verify(&self, token: &str) -> Result<Value, Error> {
        const MALFORMED: Error = Error::Token("malformed token");
        if token.len() > MAX_TOKEN {
            return Err(MALFORMED);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, payload) = signed.split_once('.').ok_or(MALFORMED)?;
        let header: Value = decode(header)?;
        if header.get("alg").and_then(Value::as_str) != Some("ES256") {
            return Err(Error::Token("token is not signed with ES256"));
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| MALFORMED)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| Error::Token("token signature is invalid"))?;
        decode(payload)
    }

    /// The key set as `/openid/v1/jwks` serves it.
    pub fn jwks(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (&point[1..33], &point[33..65]);
        json!({"keys": [{"use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)}]})
    }
}

/// The issuer that a token claims to have, without believing anything else of it.
pub fn unverified_issuer(token: &str) -> Option<String> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let payload: Value = decode(token.split('.').nth(1)?).ok()?;
    payload.get("iss")?.as_str().map(str::to_owned)
}

fn decode(part: &str) -> Result<Value, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Token("malformed token"))?;
    serde_json::from_slice(&bytes).map_err(|_| Error::Token("malformed token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> TokenClaims {
        let account = Reference { name: "a".into(), uid: "u".into() };
        TokenClaims {
            aud: vec!["x".into()],
            exp: 2,
            iat: 1,
            iss: "https://kubernetes.default.svc".into(),
            jti: "j".into(),
            kubernetes: Binding { namespace: "n".into(), serviceaccount: account, ..Default::default() },
            nbf: 1,
            sub: "system:serviceaccount:n:a".into(),
        }
    }

    #[test]
    fn tokens_verify_and_forgeries_do_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let key = ServiceAccountKey::load_or_create(dir.path()).expect("key");
        let token = key.sign(&claims()).expect("sign");
        let again = ServiceAccountKey::load_or_create(dir.path()).expect("key");
        let payload = again.verify(&token).expect("verify");
        assert_eq!(serde_json::from_value::<TokenClaims>(payload).expect("claims"), claims());
        assert_eq!(unverified_issuer(&token).as_deref(), Some("https://kubernetes.default.svc"));
        let other = ServiceAccountKey::load_or_create(&dir.path().join("other")).expect("key");
        for bad in [token.replacen('.', "..", 1), format!("{token}A"), "a.b.c".into(), String::new()] {
            assert!(key.verify(&bad).is_err(), "{bad}");
        }
        assert!(other.verify(&token).is_err(), "another key's token");
        assert_eq!(key.jwks()["keys"][0]["kid"], again.key_id.as_str());
    }
}
