//! The algorithms that `ring` lacks: secretbox, and AES-CBC for clusters that used it.

use super::Error;
use super::provider::random;
use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};

const BOX_NONCE: usize = 24;
const BLOCK: usize = 16;

/// Seals with XSalsa20-Poly1305.
pub fn seal_box(key: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let nonce = random::<BOX_NONCE>()?;
    out.extend_from_slice(&nonce);
    let sealed = secretbox(key)?.encrypt(&Nonce::from(nonce), plain).map_err(|_| Error::Damaged)?;
    out.extend_from_slice(&sealed);
    Ok(())
}

/// Opens what [`seal_box`] made.
pub fn open_box(key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let (nonce, rest) = sealed.split_first_chunk::<BOX_NONCE>().ok_or(Error::Damaged)?;
    secretbox(key)?.decrypt(&Nonce::from(*nonce), rest).map_err(|_| Error::Damaged)
}

fn secretbox(key: &[u8]) -> Result<XSalsa20Poly1305, Error> {
    XSalsa20Poly1305::new_from_slice(key).map_err(|_| Error::Config("a key for secretbox has 32 bytes".into()))
}

/// Encrypts with AES-CBC.
pub fn seal_cbc(key: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let iv = random::<BLOCK>()?;
    out.extend_from_slice(&iv);
    let unusable = |_| key_length();
    let sealed = match key.len() {
        16 => cbc::Encryptor::<Aes128>::new_from_slices(key, &iv)
            .map_err(unusable)?
            .encrypt_padded_vec_mut::<Pkcs7>(plain),
        24 => cbc::Encryptor::<Aes192>::new_from_slices(key, &iv)
            .map_err(unusable)?
            .encrypt_padded_vec_mut::<Pkcs7>(plain),
        _ => cbc::Encryptor::<Aes256>::new_from_slices(key, &iv)
            .map_err(unusable)?
            .encrypt_padded_vec_mut::<Pkcs7>(plain),
    };
    out.extend_from_slice(&sealed);
    Ok(())
}

/// Decrypts what [`seal_cbc`] made.
pub fn open_cbc(key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let (iv, rest) = sealed.split_first_chunk::<BLOCK>().ok_or(Error::Damaged)?;
    let unusable = |_| key_length();
    let opened = match key.len() {
        16 => {
            cbc::Decryptor::<Aes128>::new_from_slices(key, iv).map_err(unusable)?.decrypt_padded_vec_mut::<Pkcs7>(rest)
        }
        24 => {
            cbc::Decryptor::<Aes192>::new_from_slices(key, iv).map_err(unusable)?.decrypt_padded_vec_mut::<Pkcs7>(rest)
        }
        _ => {
            cbc::Decryptor::<Aes256>::new_from_slices(key, iv).map_err(unusable)?.decrypt_padded_vec_mut::<Pkcs7>(rest)
        }
    };
    opened.map_err(|_| Error::Damaged)
}

fn key_length() -> Error {
    Error::Config("a key for aescbc has 16, 24 or 32 bytes".into())
}
