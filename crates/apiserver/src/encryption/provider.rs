//! What seals and opens values.

use super::{Error, MARK};
use bytes::Bytes;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt;

/// Random bytes that make the key of one value out of the long-lived one.
const SALT: usize = 32;
const TAG: usize = 16;

/// A named key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Name; values say which key has sealed them.
    pub name: String,
    secret: Vec<u8>,
}

impl Key {
    /// A key of 16 or 32 bytes.
    pub fn new(name: &str, secret: Vec<u8>) -> Self {
        Self { name: name.to_owned(), secret }
    }

    /// Its bytes.
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

/// What seals and opens values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The server's own: AES-256-GCM with a key of its own for each value, derived from the long-lived one (HKDF) and
    /// random bytes, so that it can be used for any number of values.
    Local(Vec<Key>),
    /// AES-GCM with a random nonce.
    AesGcm(Vec<Key>),
    /// XSalsa20-Poly1305.
    Secretbox(Vec<Key>),
    /// AES-CBC; it does not notice changes.
    AesCbc(Vec<Key>),
    /// None.
    Identity,
}

impl Provider {
    /// What values it seals begin with; the name of the key follows.
    pub fn prefix(&self) -> &'static str {
        match self {
            Self::Local(_) => "k8s:enc:local:v1:",
            Self::AesGcm(_) => "k8s:enc:aesgcm:v1:",
            Self::Secretbox(_) => "k8s:enc:secretbox:v1:",
            Self::AesCbc(_) => "k8s:enc:aescbc:v1:",
            Self::Identity => "identity",
        }
    }

    fn keys(&self) -> &[Key] {
        match self {
            Self::Local(keys) | Self::AesGcm(keys) | Self::Secretbox(keys) | Self::AesCbc(keys) => keys,
            Self::Identity => &[],
        }
    }

    /// Whether a value has its mark.
    pub fn is_marked(&self, value: &[u8]) -> bool {
        match self {
            Self::Identity => !value.starts_with(MARK),
            other => value.starts_with(other.prefix().as_bytes()),
        }
    }

    /// Whether its first key has sealed a value.
    pub fn is_current(&self, value: &[u8]) -> bool {
        match self.keys().first() {
            Some(key) => value.starts_with(format!("{}{}:", self.prefix(), key.name).as_bytes()),
            None => self.is_marked(value),
        }
    }

    /// Seals a value for a place.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let Some(key) = self.keys().first() else { return Ok(plain.to_vec()) };
        let mut out = Vec::with_capacity(plain.len() + 128);
        out.extend_from_slice(self.prefix().as_bytes());
        out.extend_from_slice(key.name.as_bytes());
        out.push(b':');
        match self {
            Self::Local(_) => {
                let salt = random::<SALT>()?;
                out.extend_from_slice(&salt);
                let key = derived(key, &salt)?;
                // A key seals one value, so its nonce need not change.
                append_gcm(&key, [0; NONCE_LEN], place, plain, &mut out)?;
            }
            Self::AesGcm(_) => {
                let nonce = random::<NONCE_LEN>()?;
                out.extend_from_slice(&nonce);
                append_gcm(&gcm(&key.secret)?, nonce, place, plain, &mut out)?;
            }
            Self::Secretbox(_) => super::legacy::seal_box(&key.secret, plain, &mut out)?,
            Self::AesCbc(_) => super::legacy::seal_cbc(&key.secret, plain, &mut out)?,
            Self::Identity => {}
        }
        Ok(out)
    }

    /// Opens a value of a place; it has the provider's mark.
    pub fn open(&self, place: &str, value: &Bytes) -> Result<Bytes, Error> {
        if *self == Self::Identity {
            return Ok(value.clone());
        }
        let rest = value.get(self.prefix().len()..).ok_or(Error::NoMatch)?;
        let end = rest.iter().position(|b| *b == b':').ok_or(Error::NoMatch)?;
        let (name, sealed) = (&rest[..end], &rest[end + 1..]);
        let mut failure = Error::NoKey(self.name());
        for key in self.keys().iter().filter(|key| key.name.as_bytes() == name) {
            match self.open_with(key, place, sealed) {
                Ok(plain) => return Ok(plain.into()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::AesGcm(_) => "AES-GCM",
            Self::Secretbox(_) => "secretbox",
            Self::AesCbc(_) => "AES-CBC",
            Self::Identity => "identity",
        }
    }

    fn open_with(&self, key: &Key, place: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Local(_) => {
                let (salt, rest) = sealed.split_first_chunk::<SALT>().ok_or(Error::Damaged)?;
                open_gcm(&derived(key, salt)?, [0; NONCE_LEN], place, rest)
            }
            Self::AesGcm(_) => {
                let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Error::Damaged)?;
                open_gcm(&gcm(&key.secret)?, *nonce, place, rest)
            }
            Self::Secretbox(_) => super::legacy::open_box(&key.secret, sealed),
            Self::AesCbc(_) => super::legacy::open_cbc(&key.secret, sealed),
            Self::Identity => Ok(sealed.to_vec()),
        }
    }
}

/// Random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let failed = |_| Error::Config("the system has no random numbers".into());
    SystemRandom::new().fill(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derived(key: &Key, salt: &[u8]) -> Result<LessSafeKey, Error> {
    let mut bytes = [0; 32];
    let long_lived = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&key.secret);
    let info: [&[u8]; 1] = [b"sagong storage encryption"];
    let expanded = long_lived.expand(&info, Length(bytes.len()));
    expanded.and_then(|okm| okm.fill(&mut bytes)).map_err(|_| Error::Damaged)?;
    gcm(&bytes)
}

fn gcm(secret: &[u8]) -> Result<LessSafeKey, Error> {
    let algorithm: &'static Algorithm = if secret.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
    let unusable = |_| Error::Config("a key for aesgcm has 16 or 32 bytes".into());
    UnboundKey::new(algorithm, secret).map(LessSafeKey::new).map_err(unusable)
}

/// The place is authenticated, so that a value cannot be moved to another.
fn append_gcm(
    key: &LessSafeKey,
    nonce: [u8; NONCE_LEN],
    place: &str,
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let start = out.len();
    out.extend_from_slice(plain);
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(place.as_bytes()), &mut out[start..]);
    out.extend_from_slice(tag.map_err(|_| Error::Damaged)?.as_ref());
    Ok(())
}

fn open_gcm(key: &LessSafeKey, nonce: [u8; NONCE_LEN], place: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    if sealed.len() < TAG {
        return Err(Error::Damaged);
    }
    let mut out = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(nonce);
    let length = key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut out).map_err(|_| Error::Damaged)?.len();
    out.truncate(length);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_opens_what_it_seals() {
        for (provider, length) in [
            (Provider::Local as fn(Vec<Key>) -> Provider, 32),
            (Provider::AesGcm, 16),
            (Provider::AesGcm, 32),
            (Provider::Secretbox, 32),
            (Provider::AesCbc, 32),
            (Provider::AesCbc, 24),
            (Provider::AesCbc, 16),
        ] {
            let provider = provider(vec![Key::new("k", vec![7; length])]);
            for plain in [&b""[..], b"x", &[b'y'; 5000]] {
                let sealed: Bytes = provider.seal("/p", plain).expect("sealed").into();
                assert!(provider.is_current(&sealed), "{provider:?}");
                assert_eq!(provider.open("/p", &sealed).as_deref(), Ok(plain), "{provider:?}");
                assert_ne!(
                    provider.seal("/p", plain).map(Bytes::from),
                    Ok(sealed),
                    "{provider:?}: never the same twice"
                );
            }
            for damaged in ["", "k:", "k:x", "other:xyz"] {
                let value = Bytes::from(format!("{}{damaged}", provider.prefix()));
                assert!(provider.open("/p", &value).is_err(), "{provider:?} {damaged}");
            }
        }
    }
}
