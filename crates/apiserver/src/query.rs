//! Query parameters, parsed as Kubernetes parses them.

use api::Status;

/// The parameters of a request in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what follows `?`.
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(text.unwrap_or("").as_bytes());
        Self(pairs.map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    /// The first value of a parameter, or empty.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    /// Whether the parameter is given at all.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// Every value of a parameter.
    pub fn all(&self, key: &str) -> Vec<&str> {
        self.0.iter().filter(|(k, _)| k == key).map(|(_, v)| v.as_str()).collect()
    }

    /// A flag: absent, `false` and `0` are false, anything else (empty too) is true.
    pub fn flag(&self, key: &str) -> bool {
        self.0.iter().find(|(k, _)| k == key).is_some_and(|(_, v)| !v.eq_ignore_ascii_case("false") && v != "0")
    }

    /// A flag that may be absent.
    pub fn optional_flag(&self, key: &str) -> Option<bool> {
        self.has(key).then(|| self.flag(key))
    }

    /// A whole number; absent: `None`.
    pub fn integer(&self, key: &str) -> Result<Option<i64>, Status> {
        let Some((_, text)) = self.0.iter().find(|(k, _)| k == key) else { return Ok(None) };
        let failed = |why: &str| {
            Status::bad_request(format!("strconv.ParseInt: parsing {text}: {why}", text = api::quoted(text)))
        };
        match text.parse::<i64>() {
            Ok(number) => Ok(Some(number)),
            Err(e) => match e.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                    Err(failed("value out of range"))
                }
                _ => Err(failed("invalid syntax")),
            },
        }
    }

    /// The pairs, to be sent on.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_parameters() {
        let query = Query::parse(Some("a=1&b=&c=False&d=x&a=2&e=9999999999999999999"));
        assert_eq!((query.get("a"), query.all("a"), query.get("z")), ("1", vec!["1", "2"], ""));
        for (key, want) in [("a", true), ("b", true), ("c", false), ("z", false)] {
            assert_eq!(query.flag(key), want, "{key}");
        }
        assert_eq!(query.integer("a"), Ok(Some(1)));
        assert_eq!(query.integer("z"), Ok(None));
        let message = |key| query.integer(key).expect_err("not a number").message;
        assert_eq!(message("d"), "strconv.ParseInt: parsing \"x\": invalid syntax");
        assert_eq!(message("e"), "strconv.ParseInt: parsing \"9999999999999999999\": value out of range");
    }
}
