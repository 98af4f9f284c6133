//! The request inside of a signing request: PEM, PKCS#10, and its own signature, in the words of Go's libraries.

use std::ops::RangeInclusive;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Error};
use x509_parser::public_key::PublicKey;

/// The bits of RSA keys whose signatures are checked here: shorter and longer ones Go checks alone.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// What is wrong with a request.
pub(super) fn error(pem: &str) -> Option<String> {
    let Some(der) = decode(pem) else { return Some("PEM block type must be CERTIFICATE REQUEST".into()) };
    let outer = outer_error(&der);
    if outer.is_some() {
        return outer;
    }
    match X509CertificationRequest::from_der(&der) {
        Err(_) => Some("x509: malformed certificate request".into()),
        Ok((_, request)) => signature_error(&request),
    }
}

/// The bytes of the first block, if it is of a request.
fn decode(pem: &str) -> Option<Vec<u8>> {
    crate::pem::blocks(pem.as_bytes())
        .next()
        .filter(|block| block.kind == "CERTIFICATE REQUEST")
        .map(|block| block.bytes)
}

/// What is wrong with the outermost element: a sequence that ends where the bytes end.
fn outer_error(der: &[u8]) -> Option<String> {
    let text = |what: &str| Some(format!("asn1: syntax error: {what}"));
    let [tag, first, rest @ ..] = der else {
        return text(if der.is_empty() { "sequence truncated" } else { "truncated tag or length" });
    };
    let octets = if *first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    if octets > size_of::<usize>() || octets > rest.len() {
        return text("truncated tag or length");
    }
    let (length, content) = rest.split_at(octets);
    let given = length.iter().fold(0usize, |all, octet| all << 8 | usize::from(*octet));
    let length = if octets == 0 { usize::from(*first) } else { given };
    if length > content.len() {
        return text("data truncated");
    }
    if *tag != 0x30 {
        return Some(wrong_tag(*tag, length, 2 + octets));
    }
    match (length, content.len() - length) {
        (0, _) => text("sequence truncated"),
        (_, 0) => None,
        _ => text("trailing data"),
    }
}

fn wrong_tag(tag: u8, length: usize, at: usize) -> String {
    let (class, number, compound) = (tag >> 6, tag & 0x1f, tag & 0x20 != 0);
    let parameters = "{optional:false explicit:false application:false private:false defaultValue:<nil> tag:<nil> stringType:0 timeType:0 set:false omitEmpty:false}";
    format!(
        "asn1: structure error: tags don't match (16 vs {{class:{class} tag:{number} length:{length} isCompound:{compound}}}) {parameters} certificateRequest @{at}"
    )
}

/// The bits of a number, whatever zeros stand before it.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros).map_or(0, |first| (number.len() - zeros) * 8 - first.leading_zeros() as usize)
}

fn signature_error(request: &X509CertificationRequest<'_>) -> Option<String> {
    let key = request.certification_request_info.subject_pki.parsed().ok();
    if let Some(PublicKey::RSA(rsa)) = &key {
        if !RSA_BITS.contains(&bits(rsa.modulus)) {
            return None;
        }
    }
    match request.verify_signature() {
        Err(X509Error::SignatureVerificationError) => Some(
            match key {
                Some(PublicKey::RSA(_)) => "crypto/rsa: verification error",
                Some(PublicKey::EC(_)) => "x509: ECDSA verification failure",
                _ => "x509: Ed25519 verification failure",
            }
            .into(),
        ),
        // Algorithms that are not known here may be known to a signer.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    const REQUEST: &str = "MIHMMHQCAQAwEjEQMA4GA1UEAwwHdGVzdGluZzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABA";

    #[test]
    fn bits_are_counted() {
        let check = |number: &[u8], want: usize| assert_eq!(bits(number), want, "{number:?}");
        check(&[], 0);
        check(&[0, 0], 0);
        check(&[0, 0x80, 0], 16);
        check(&[1, 0], 9);
    }

    #[test]
    fn requests_are_parsed() {
        let check = |der: &[u8], want: &str| {
            let pem = format!(
                "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
                STANDARD.encode(der)
            );
            assert_eq!(error(&pem).as_deref(), Some(want));
        };
        check(&[], "asn1: syntax error: sequence truncated");
        check(&[0x30], "asn1: syntax error: truncated tag or length");
        check(&[0x30, 0], "asn1: syntax error: sequence truncated");
        check(&[0x30, 5, 1], "asn1: syntax error: data truncated");
        check(&[0x30, 1, 1, 1], "asn1: syntax error: trailing data");
        assert!(wrong_tag(2, 1, 2).contains("(16 vs {class:0 tag:2 length:1 isCompound:false})"));
        let none = Some("PEM block type must be CERTIFICATE REQUEST");
        for pem in ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\n!!!\n-----END CERTIFICATE REQUEST-----\n"] {
            assert_eq!(error(pem).as_deref(), none);
        }
        assert_eq!(
            error(&format!(
                "-----BEGIN NEW CERTIFICATE REQUEST-----\n{REQUEST}\n-----END NEW CERTIFICATE REQUEST-----\n"
            ))
            .as_deref(),
            none
        );
    }
}
