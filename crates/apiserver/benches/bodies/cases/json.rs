//! Bodies of JSON, whatever they describe.

use super::*;

fn nested(open: &str, close: &str) -> Call {
    let times = BODY / (open.len() + close.len());
    call("POST", CONFIG_MAPS, JSON, format!("{}1{}", open.repeat(times), close.repeat(times)))
}

fn metadata(what: &str, open: char, item: impl Fn(usize) -> String, close: char) -> Call {
    let before = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"c","{what}":{open}"#);
    filled(CONFIG_MAPS, &before, item, &format!("{close}}}}}"))
}

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        case!(
            "config map: keys",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"data\":{{"), |i| format!(r#""k{i:06}":"""#), "}}")
        ),
        case!("config map: 50,000 keys", {
            let data = repeat(50_000 * 13, |i| format!(r#""k{i:06}":"""#));
            call("POST", CONFIG_MAPS, JSON, format!("{{{CONFIG_MAP},\"data\":{{{data}}}}}"))
        }),
        case!(
            "config map: one value",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"data\":{{\"k\":\""), |_| "x".repeat(1000), "\"}}")
        ),
        case!(
            "config map: escapes",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"data\":{{\"k\":\""), |_| "\\u0001".repeat(150), "\"}}")
        ),
        case!(
            "config map: binary values",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"binaryData\":{{"), |i| format!(r#""k{i:06}":"eA==""#), "}}")
        ),
        case!(
            "config map: bad binary values",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"binaryData\":{{"), |i| format!(r#""k{i:06}":"?""#), "}}")
        ),
        case!(
            "config map: bad keys",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"data\":{{"), |i| format!(r#""?{i:06}":"""#), "}}")
        ),
        case!("unknown fields", filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},"), |i| format!(r#""u{i}":1"#), "}")),
        case!("unknown fields, strict", {
            let path = format!("{CONFIG_MAPS}&fieldValidation=Strict");
            filled(&path, &format!("{{{CONFIG_MAP},"), |i| format!(r#""u{i}":1"#), "}")
        }),
        case!("one field often, strict", {
            let path = format!("{CONFIG_MAPS}&fieldValidation=Strict");
            filled(&path, &format!("{{{CONFIG_MAP},\"data\":{{"), |_| r#""k":"""#.into(), "}}")
        }),
        case!("annotations", metadata("annotations", '{', |i| format!(r#""a{i}":"""#), '}')),
        case!("labels", metadata("labels", '{', |i| format!(r#""a{i}":"""#), '}')),
        case!("bad labels", metadata("labels", '{', |i| format!(r#""?{i}":"?""#), '}')),
        case!("finalizers", metadata("finalizers", '[', |i| format!(r#""x/f{i}""#), ']')),
        case!("bad finalizers", metadata("finalizers", '[', |i| format!(r#""?{i}""#), ']')),
        case!(
            "owners",
            metadata(
                "ownerReferences",
                '[',
                |i| format!(r#"{{"apiVersion":"v1","kind":"Pod","name":"o","uid":"{i}"}}"#),
                ']'
            )
        ),
        case!(
            "owners, one often",
            metadata(
                "ownerReferences",
                '[',
                |_| r#"{"apiVersion":"v1","kind":"Pod","name":"o","uid":"u"}"#.into(),
                ']'
            )
        ),
        case!(
            "managed fields",
            metadata(
                "managedFields",
                '[',
                |i| format!(
                    r#"{{"manager":"m{i}","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{{"f:a":{{}}}}}}"#
                ),
                ']'
            )
        ),
        case!(
            "managed fields, one wide",
            metadata(
                "managedFields",
                '[',
                |_| {
                    let fields = repeat(BODY - 1024, |i| format!(r#""f:{i}":{{}}"#));
                    format!(
                        r#"{{"manager":"m","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{{{fields}}}}}"#
                    )
                },
                ']'
            )
        ),
        case!("nested maps", nested("{\"a\":", "}")),
        case!("nested lists", nested("[", "]")),
        case!("empty maps", call("POST", CONFIG_MAPS, JSON, format!("[{}]", repeat_all(BODY, |_| "{}".into())))),
        case!("config map: more keys than are read", {
            let data = repeat_all(BODY - 256, |i| format!(r#""k{i:06}":"""#));
            call("POST", CONFIG_MAPS, JSON, format!("{{{CONFIG_MAP},\"data\":{{{data}}}}}"))
        }),
        case!("numbers", filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"x\":["), |_| "1".into(), "]}")),
        case!(
            "a long number",
            filled(CONFIG_MAPS, &format!("{{{CONFIG_MAP},\"x\":1"), |_| "1".repeat(1000), "}").without_commas()
        ),
    ]
}
