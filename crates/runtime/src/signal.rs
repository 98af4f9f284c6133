//! Names of signals.

use cri::{Error, Result};

const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// Parses `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` or `SIGRTMAX-1`; empty means SIGTERM.
pub(crate) fn parse(text: &str) -> Result<i32> {
    let invalid = || Error::InvalidArgument(format!("invalid signal \"{text}\""));
    let upper = text.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if name.is_empty() {
        return Ok(libc::SIGTERM);
    }
    let offset = |rest: &str, sign: char| -> Option<i32> {
        if rest.is_empty() { Some(0) } else { rest.strip_prefix(sign)?.parse().ok() }
    };
    let number = match (name.parse::<i32>(), name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Ok(number), ..) => Some(number),
        (_, Some(rest), _) => offset(rest, '+').map(|n| 34 + n),
        (_, _, Some(rest)) => offset(rest, '-').map(|n| 64 - n),
        _ => NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number),
    };
    number.filter(|n| (1..=64).contains(n)).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (text, expect) in [
            ("", Some(15)),
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMIN", Some(34)),
            ("SIGFOO", None),
            ("0", None),
            ("65", None),
            ("RTMIN+x", None),
        ] {
            assert_eq!(parse(text).ok(), expect, "{text}");
        }
    }
}
