//! JSON Web Tokens of other issuers: their parts, and key sets that verify them (RFC 7515, 7517, 7518).

use crate::Error;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;

/// No token is longer; anything longer is refused before it is decoded.
pub const MAX_TOKEN: usize = 16 * 1024;
/// The algorithms that tokens may be signed with.
pub const ALGORITHMS: &[&str] = &["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512", "EdDSA"];
const MALFORMED: Error = Error::Token("malformed token");

/// A token taken apart; nothing in it is to be believed before [`KeySet::verify`] says so.
#[derive(Debug)]
pub struct Jwt<'a> {
    /// Algorithm.
    pub algorithm: String,
    /// Which key signed it, where the token says so.
    pub key_id: String,
    /// The claims.
    pub claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    /// Takes a token in compact form apart.
    pub fn parse(token: &'a str) -> Result<Self, Error> {
        if token.len() > MAX_TOKEN {
            return Err(MALFORMED);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, payload) = signed.split_once('.').ok_or(MALFORMED)?;
        let header = decode(header)?;
        let text = |key: &str| header.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        // Extensions that must be understood are not.
        if header.get("crit").is_some() {
            return Err(Error::Token("token has critical headers"));
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| MALFORMED)?;
        Ok(Self { algorithm: text("alg"), key_id: text("kid"), claims: decode(payload)?, signed, signature })
    }

    /// Whether a key signed it.
    pub(crate) fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verify(&self.algorithm, self.signed.as_bytes(), &self.signature)
    }

    /// A text claim, empty where there is none.
    pub fn text(&self, claim: &str) -> &str {
        self.claims.get(claim).and_then(Value::as_str).unwrap_or("")
    }
}

fn decode(part: &str) -> Result<Value, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| MALFORMED)?;
    if value.is_object() { Ok(value) } else { Err(MALFORMED) }
}

#[derive(Clone, Debug)]
pub(crate) enum PublicKey {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicKey {
    fn of_jwk(jwk: &Value) -> Option<Self> {
        let text = |key: &str| jwk.get(key).and_then(Value::as_str);
        let bytes = |key: &str| URL_SAFE_NO_PAD.decode(text(key)?.trim_end_matches('=')).ok();
        let point = || Some([&[4u8][..], &bytes("x")?, &bytes("y")?].concat());
        match (text("kty")?, text("crv")) {
            ("RSA", _) => Some(Self::Rsa { n: bytes("n")?, e: bytes("e")? }),
            ("EC", Some("P-256")) => point().map(Self::P256),
            ("EC", Some("P-384")) => point().map(Self::P384),
            ("OKP", Some("Ed25519")) => bytes("x").map(Self::Ed25519),
            _ => None,
        }
    }

    pub(crate) fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        let rsa = |parameters| match self {
            Self::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok(),
            _ => false,
        };
        let plain = |with: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(with, key).verify(message, signature).is_ok()
        };
        match (algorithm, self) {
            ("RS256", _) => rsa(&RSA_PKCS1_2048_8192_SHA256),
            ("RS384", _) => rsa(&RSA_PKCS1_2048_8192_SHA384),
            ("RS512", _) => rsa(&RSA_PKCS1_2048_8192_SHA512),
            ("PS256", _) => rsa(&RSA_PSS_2048_8192_SHA256),
            ("PS384", _) => rsa(&RSA_PSS_2048_8192_SHA384),
            ("PS512", _) => rsa(&RSA_PSS_2048_8192_SHA512),
            ("ES256", Self::P256(point)) => plain(&ECDSA_P256_SHA256_FIXED, point),
            ("ES384", Self::P384(point)) => plain(&ECDSA_P384_SHA384_FIXED, point),
            ("EdDSA", Self::Ed25519(point)) => plain(&signature::ED25519, point),
            _ => false,
        }
    }
}

/// The public keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<(String, PublicKey)>);

impl KeySet {
    /// Reads a JSON Web Key Set; keys for other uses and of kinds that are not known are left out.
    pub fn parse(set: &Value) -> Result<Self, Error> {
        let keys = set.get("keys").and_then(Value::as_array).ok_or(Error::Token("not a JSON Web Key Set"))?;
        let signing = keys.iter().filter(|k| k.get("use").and_then(Value::as_str).is_none_or(|u| u == "sig"));
        let id = |k: &Value| k.get("kid").and_then(Value::as_str).unwrap_or("").to_owned();
        Ok(Self(signing.filter_map(|k| Some((id(k), PublicKey::of_jwk(k)?))).collect()))
    }

    /// Whether one of the keys signed the token: the one it names, or any when it names none.
    pub fn verify(&self, token: &Jwt<'_>) -> bool {
        let named = |id: &str| token.key_id.is_empty() || id.is_empty() || id == token.key_id;
        self.0.iter().any(|(id, key)| named(id) && token.is_signed_by(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServiceAccountKey;
    use crate::token::TokenClaims;
    use serde_json::json;

    #[test]
    fn key_sets_verify_their_tokens() {
        let dir = tempfile::tempdir().expect("tempdir");
        let key = ServiceAccountKey::load_or_create(dir.path()).expect("key");
        let claims: TokenClaims = serde_json::from_value(json!({"exp": 2, "iss": "i", "sub": "s",
            "kubernetes.io": {"namespace": "n", "serviceaccount": {"name": "a"}}}))
        .expect("claims");
        let token = key.sign(&claims).expect("sign");
        let jwt = Jwt::parse(&token).expect("parse");
        assert_eq!((jwt.algorithm.as_str(), jwt.text("iss")), ("ES256", "i"));
        let set = KeySet::parse(&key.jwks()).expect("set");
        assert!(set.verify(&jwt));
        let forged = format!("{}A{}", &token[..token.len() - 4], &token[token.len() - 3..]);
        assert!(forged == token || !set.verify(&Jwt::parse(&forged).expect("parse")));
        assert!(!KeySet::default().verify(&jwt));
        for bad in ["", "a", "a.b", "a.b.c", "e30.W10.", &"x".repeat(MAX_TOKEN + 1)] {
            assert!(Jwt::parse(bad).is_err(), "{bad}");
        }
        assert!(KeySet::parse(&json!({})).is_err());
    }
}
