//! Sets and maps.

use super::expr::{Verdict, value_data};
use crate::netlink::Messages;
use std::time::Duration;

/// A set, map or verdict map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Name.
    pub name: String,
    /// Bytes of each part of the key; more than one is a concatenation.
    pub key: Vec<u8>,
    /// What `nft list` shows the parts as; numbers of libnftables' types.
    pub key_type: u32,
    /// Bytes of the value of a map.
    pub data: Option<u8>,
    /// Maps to verdicts.
    pub verdicts: bool,
    /// Elements may be added by packets, and end after this.
    pub timeout: Option<Duration>,
}

/// An element to be added or removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Element {
    /// Key, see [`concat`].
    pub key: Vec<u8>,
    /// Value of a map.
    pub data: Option<Vec<u8>>,
    /// Verdict of a verdict map.
    pub verdict: Option<Verdict>,
}

impl Element {
    /// An element of a set.
    pub fn key(key: Vec<u8>) -> Element {
        Element { key, data: None, verdict: None }
    }

    /// An element of a verdict map.
    pub fn verdict(key: Vec<u8>, verdict: Verdict) -> Element {
        Element { key, data: None, verdict: Some(verdict) }
    }

    /// An element of a map.
    pub fn value(key: Vec<u8>, data: Vec<u8>) -> Element {
        Element { key, data: Some(data), verdict: None }
    }

    /// Bytes it takes in a message, at most.
    pub(crate) fn size(&self) -> usize {
        let chain = match &self.verdict {
            Some(Verdict::Jump(chain) | Verdict::Goto(chain)) => chain.len(),
            _ => 0,
        };
        64 + self.key.len() + self.data.as_ref().map_or(0, Vec::len) + chain
    }

    pub(crate) fn write(&self, list: &mut Messages) {
        const ELEMENT: u16 = 1;
        list.nest(ELEMENT, |m| {
            value_data(m, 1, &self.key);
            if let Some(data) = &self.data {
                value_data(m, 2, data);
            }
            if let Some(verdict) = &self.verdict {
                m.nest(2, |m| verdict.write(m));
            }
        });
    }
}

/// A key of several parts: each padded to whole registers.
pub fn concat(parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        key.extend_from_slice(part);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

/// libnftables' number of `ipv4_addr`.
pub const IPV4_ADDR: u32 = 7;
/// libnftables' number of `inet_proto`.
pub const INET_PROTO: u32 = 12;
/// libnftables' number of `inet_service`.
pub const INET_SERVICE: u32 = 13;

impl Set {
    /// A set with keys of these `(bytes, libnftables type)`.
    pub fn new(name: impl Into<String>, parts: &[(u8, u32)]) -> Set {
        let key_type = parts.iter().fold(0, |all, (_, kind)| (all << 6) | kind);
        Set { name: name.into(), key: parts.iter().map(|(len, _)| *len).collect(), key_type, ..Set::default() }
    }

    /// Makes it a map to verdicts.
    pub fn to_verdicts(mut self) -> Set {
        self.verdicts = true;
        self
    }

    /// Makes it a map to values of so many bytes.
    pub fn to_values(mut self, len: u8) -> Set {
        self.data = Some(len);
        self
    }

    /// Lets packets add elements that end after a time.
    pub fn expiring(mut self, timeout: Duration) -> Set {
        self.timeout = Some(timeout);
        self
    }

    pub(crate) fn write(&self, m: &mut Messages, id: u32) {
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 0x10;
        const EVAL: u32 = 0x20;
        const ELEMENTS_MAX: u32 = 65536;
        const VERDICT_TYPE: u32 = 0xffff_ff00;
        let length: u32 = self.key.iter().map(|len| u32::from(*len).next_multiple_of(4)).sum();
        let length = if self.key.len() == 1 { u32::from(self.key[0]) } else { length };
        let mut flags = 0;
        if self.verdicts || self.data.is_some() {
            flags |= MAP;
        }
        if self.timeout.is_some() {
            flags |= TIMEOUT | EVAL;
        }
        m.network(3, flags).network(4, self.key_type).network(5, length).network(10, id);
        if self.verdicts {
            m.network(6, VERDICT_TYPE).network(7, 0);
        } else if let Some(len) = self.data {
            m.network(6, 0).network(7, u32::from(len));
        }
        if let Some(timeout) = self.timeout {
            m.attr(11, &(timeout.as_millis() as u64).to_be_bytes());
            // Packets add elements: outsiders must not fill the memory.
            m.nest(9, |m| {
                m.network(1, ELEMENTS_MAX);
            });
        }
    }
}
