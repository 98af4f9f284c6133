//! What a document takes once it is read, judged before it is.
//!
//! A body of 3 MB that is made of the smallest values takes a hundred times its length as JSON values, and most of a second
//! for everything that looks at each of them. The most that may be read is more than an object can hold that etcd takes
//! (1.5 MiB).

/// What is read of one document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes of memory.
    pub bytes: usize,
    /// Values: members of maps and items of lists.
    pub values: usize,
}

impl Weight {
    /// The most that is read of one document: what 64 MiB and 100 ms suffice for, all handling included.
    pub const MOST: Self = Self { bytes: 24 << 20, values: 64 << 10 };
    /// A map has room for eleven members as soon as it has one.
    pub const MAP: Self = Self { bytes: 640, values: 0 };
    /// An item or a member.
    pub const VALUE: Self = Self { bytes: 48, values: 1 };

    /// That of a JSON document, judged by its text.
    pub fn of_json(json: &[u8]) -> Self {
        let (mut bytes, mut values, mut in_string, mut escaped) = (json.len(), 0, false, false);
        for byte in json {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => {
                    in_string = !in_string;
                    bytes += 12;
                }
                _ if in_string => {}
                b'{' => bytes += Self::MAP.bytes,
                b'[' => bytes += 128,
                b',' => {
                    bytes += Self::VALUE.bytes;
                    values += 1;
                }
                _ => {}
            }
        }
        Self { bytes, values }
    }

    /// What is left when another is taken; `None` where that is too much.
    pub fn without(self, other: Self) -> Option<Self> {
        let bytes = self.bytes.checked_sub(other.bytes)?;
        Some(Self { bytes, values: self.values.checked_sub(other.values)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_weighed() {
        let check = |json: &str, bytes: usize, values: usize| {
            assert_eq!(Weight::of_json(json.as_bytes()), Weight { bytes, values }, "{json}");
        };
        check("{}", 2 + 640, 0);
        check("[1,2]", 5 + 128 + 48, 1);
        check(r#""{,\"[""#, 7 + 24, 0);
        assert_eq!(Weight::MOST.without(Weight { bytes: 0, values: 1 << 20 }), None);
        assert_eq!(Weight::MAP.without(Weight { bytes: 40, values: 0 }).map(|left| left.bytes), Some(600));
    }
}
