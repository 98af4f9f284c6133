//! Durations as Go writes them (`1m30s`), for serde.

pub use api::duration::parse;
use serde::{Deserialize, Deserializer, Serializer};
use std::time::Duration;

/// Writes Go's text.
pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&crate::format::duration(*value))
}

/// Reads Go's text.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| serde::de::Error::custom(format!("time: invalid duration {text:?}")))
}

/// The same where it may be absent.
pub mod optional {
    use super::{Deserialize, Deserializer, Duration, Serializer, parse};

    /// Writes Go's text.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads Go's text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let parsed = text.map(|t| parse(&t).ok_or_else(|| format!("time: invalid duration {t:?}"))).transpose();
        parsed.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_texts() {
        for (text, millis) in
            [("5m0s", 300_000), ("1h1m1s", 3_661_000), ("1.5s", 1_500), ("20ms", 20), ("0s", 0), ("0", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "x", "5d", "s", "-1s", "1e9999h"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
