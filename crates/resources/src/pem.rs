//! PEM as Go's library reads it, in one pass: a block is what stands between an END line and the last BEGIN line
//! before it. BEGIN lines without an END are passed over and never looked at again.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// Go looks at no bits after the last byte.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// A block.
pub(crate) struct Block {
    /// What it says that it is.
    pub kind: String,
    /// What it holds, decoded.
    pub bytes: Vec<u8>,
}

/// The blocks of a text; what is no block is passed over.
pub(crate) fn blocks(text: &[u8]) -> impl Iterator<Item = Block> {
    let (mut lines, mut open) = (text.split(|byte| *byte == b'\n'), None);
    std::iter::from_fn(move || {
        for line in lines.by_ref() {
            if let Some(kind) = line.strip_prefix(END) {
                let closed = open.take().and_then(|(of, body)| block(of, kind, body));
                if closed.is_some() {
                    return closed;
                }
            } else if let Some(kind) = line.strip_prefix(BEGIN) {
                open = line.trim_ascii_end().ends_with(DASHES).then(|| (kind.trim_ascii_end(), Vec::new()));
            } else if let Some((_, body)) = &mut open {
                add(body, line);
            }
        }
        None
    })
}

/// Adds a line to a body. Before the first line of it come headers.
fn add(body: &mut Vec<u8>, line: &[u8]) {
    if !(body.is_empty() && line.contains(&b':')) {
        body.extend(line.iter().filter(|byte| !matches!(byte, b' ' | b'\t' | b'\r')));
    }
}

/// A block, whose lines begin and end with the same kind and dashes.
fn block(begun: &[u8], ended: &[u8], body: Vec<u8>) -> Option<Block> {
    let kind = begun.strip_suffix(DASHES).filter(|_| begun == ended.trim_ascii_end())?;
    Some(Block { kind: String::from_utf8_lossy(kind).into_owned(), bytes: BASE64.decode(body).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found() {
        let check = |text: &str, want: &[(&str, &[u8])]| {
            let got: Vec<_> = blocks(text.as_bytes()).map(|block| (block.kind, block.bytes)).collect();
            let want: Vec<_> = want.iter().map(|(kind, bytes)| ((*kind).to_owned(), bytes.to_vec())).collect();
            assert_eq!(got, want, "{text}");
        };
        check("", &[]);
        check("-----BEGIN A-----\nYQ==\n-----END A-----", &[("A", b"a")]);
        check("x\r\n-----BEGIN A-----\r\nk: v\r\n\r\nY Q==\r\n-----END A-----\r\n", &[("A", b"a")]);
        check("-----BEGIN A-----\nYQ==\n-----BEGIN B-----\n-----END B-----\n", &[("B", b"")]);
        for wrong in [
            "-----BEGIN A-----\nYQ==\n-----END B-----\n",
            " -----BEGIN A-----\nYQ==\n-----END A-----\n",
            "-----BEGIN A\nYQ==\n-----END A-----\n",
            "-----BEGIN A-----\nYQ==\nk: v\n-----END A-----\n",
            "-----BEGIN A-----\nYQ==\n-----END A-----x\n",
            "-----BEGIN A-----\nYQ==\n",
        ] {
            check(&format!("{wrong}-----BEGIN C-----\nYg==\n-----END C-----\n"), &[("C", b"b")]);
        }
    }

    #[test]
    fn what_has_no_end_is_read_once() {
        let text = "-----BEGIN -----\n".repeat(1 << 20);
        assert_eq!(blocks(text.as_bytes()).count(), 0);
    }
}
