//! Service account tokens: JWTs bound to an audience, a time and (often) an object.

use crate::jwt::{Jwt, PublicKey};
use crate::{Error, files};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

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

/// The key that signs tokens (ES256, or RS256 with an RSA key that was given), and those that verify them.
pub struct ServiceAccountKey {
    pair: Pair,
    random: SystemRandom,
    key_id: String,
    verifying: Vec<Verifying>,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A public key, with the id that is the digest of its SubjectPublicKeyInfo.
struct Verifying {
    key_id: String,
    key: PublicKey,
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

    /// The key of a PEM text: an EC key P-256 (PKCS#8), or an RSA key (PKCS#8 or PKCS#1).
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let key = |e: &dyn std::fmt::Display| Error::Key(e.to_string());
        let random = SystemRandom::new();
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| key(&e))?;
        let rsa = match &der {
            PrivateKeyDer::Pkcs1(der) => Some(RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(|e| key(&e))?),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
            _ => None,
        };
        let pair = match rsa {
            Some(rsa) => Pair::Rsa(rsa),
            None => {
                let der = rcgen::KeyPair::from_pem(pem)?.serialize_der();
                let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random);
                Pair::Ec(ec.map_err(|e| key(&e))?)
            }
        };
        let own = pair.verifying()?;
        Ok(Self { key_id: own.key_id.clone(), pair, random, verifying: vec![own] })
    }

    /// Tokens of these keys are good as well: PEM public keys, or private ones.
    pub fn also_verify(&mut self, pem: &str) -> Result<(), Error> {
        let keys = Verifying::of_pem(pem)?;
        let new = keys.into_iter().filter(|k| self.verifying.iter().all(|have| have.key_id != k.key_id));
        let new: Vec<_> = new.collect();
        self.verifying.extend(new);
        Ok(())
    }

    /// The algorithms that its tokens may be signed with.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut out = Vec::new();
        for key in &self.verifying {
            if !out.contains(&key.algorithm()) {
                out.push(key.algorithm());
            }
        }
        out
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
        let header = json!({"alg": self.pair.algorithm(), "kid": self.key_id}).to_string();
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(&self.random, token.as_bytes())?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// The payload of a token whose signature is ours; times, audience and bindings are the caller's to check.
    pub fn verify(&self, token: &str) -> Result<Value, Error> {
        let jwt = Jwt::parse(token)?;
        let fits = |k: &&Verifying| (jwt.key_id.is_empty() || k.key_id == jwt.key_id) && k.algorithm() == jwt.algorithm;
        match self.verifying.iter().filter(fits).any(|k| jwt.is_signed_by(&k.key)) {
            true => Ok(jwt.claims),
            false => Err(Error::Token("token signature is invalid")),
        }
    }

    /// The key set as `/openid/v1/jwks` serves it.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.verifying.iter().map(Verifying::jwk).collect::<Vec<_>>()})
    }
}

impl Pair {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(_) => "ES256",
            Self::Rsa(_) => "RS256",
        }
    }

    fn sign(&self, random: &SystemRandom, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |e: ring::error::Unspecified| Error::Key(e.to_string());
        match self {
            Self::Ec(pair) => Ok(pair.sign(random, message).map_err(failed)?.as_ref().to_vec()),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }

    fn verifying(&self) -> Result<Verifying, Error> {
        let spki = match self {
            Self::Ec(pair) => [&SPKI_PREFIX[..], pair.public_key().as_ref()].concat(),
            Self::Rsa(pair) => rsa_spki(pair.public_key().as_ref()),
        };
        Verifying::of_spki(&spki)
    }
}

impl Verifying {
    fn of_spki(spki: &[u8]) -> Result<Self, Error> {
        let failed = |why: &str| Error::Key(why.to_owned());
        let (_, parsed) = SubjectPublicKeyInfo::from_der(spki).map_err(|e| failed(&e.to_string()))?;
        let key = match parsed.parsed().map_err(|e| failed(&e.to_string()))? {
            x509_parser::public_key::PublicKey::RSA(key) => {
                let unsigned = |bytes: &[u8]| bytes.iter().copied().skip_while(|b| *b == 0).collect::<Vec<u8>>();
                PublicKey::Rsa { n: unsigned(key.modulus), e: unsigned(key.exponent) }
            }
            x509_parser::public_key::PublicKey::EC(point) if point.data().len() == 65 => {
                PublicKey::P256(point.data().to_vec())
            }
            _ => return Err(failed("only RSA and P-256 keys sign service account tokens")),
        };
        let digest = ring::digest::digest(&ring::digest::SHA256, spki);
        Ok(Self { key_id: URL_SAFE_NO_PAD.encode(digest), key })
    }

    /// The keys of a PEM text.
    fn of_pem(pem: &str) -> Result<Vec<Self>, Error> {
        let mut keys = Vec::new();
        for block in x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()) {
            let block = block.map_err(|e| Error::Key(e.to_string()))?;
            match block.label.as_str() {
                "PUBLIC KEY" => keys.push(Self::of_spki(&block.contents)?),
                "RSA PUBLIC KEY" => keys.push(Self::of_spki(&rsa_spki(&block.contents))?),
                label if label.ends_with("PRIVATE KEY") => keys.extend(ServiceAccountKey::from_pem(pem)?.verifying),
                _ => {}
            }
        }
        if keys.is_empty() { Err(Error::Key("the file holds no key".into())) } else { Ok(keys) }
    }

    fn algorithm(&self) -> &'static str {
        if matches!(self.key, PublicKey::Rsa { .. }) { "RS256" } else { "ES256" }
    }

    fn jwk(&self) -> Value {
        let mut jwk = json!({"use": "sig", "kid": self.key_id, "alg": self.algorithm()});
        let encode = |bytes: &[u8]| Value::from(URL_SAFE_NO_PAD.encode(bytes));
        match &self.key {
            PublicKey::Rsa { n, e } => {
                jwk["kty"] = "RSA".into();
                jwk["n"] = encode(n);
                jwk["e"] = encode(e);
            }
            PublicKey::P256(point) | PublicKey::P384(point) | PublicKey::Ed25519(point) => {
                let half = point.len() / 2;
                jwk["kty"] = "EC".into();
                jwk["crv"] = "P-256".into();
                jwk["x"] = encode(&point[1..=half]);
                jwk["y"] = encode(&point[half + 1..]);
            }
        }
        jwk
    }
}

/// SubjectPublicKeyInfo (RFC 5280) around an RSAPublicKey (RFC 8017), both DER.
fn rsa_spki(public: &[u8]) -> Vec<u8> {
    const RSA: [u8; 15] = [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let bits = tagged(0x03, &[&[0], public].concat());
    tagged(0x30, &[&RSA[..], &bits].concat())
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        _ => {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|b| *b == 0).collect();
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

/// The issuer that a token claims to have, without believing anything else of it.
pub fn unverified_issuer(token: &str) -> Option<String> {
    Some(Jwt::parse(token).ok()?.claims.get("iss")?.as_str()?.to_owned())
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
