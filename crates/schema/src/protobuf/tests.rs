//! Protobuf in both directions.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// What a real server gave: `testdata/pairs.json`, or the file named by `SCHEMA_PAIRS`.
fn recorded() -> Value {
    let text = match std::env::var("SCHEMA_PAIRS") {
        Ok(path) => std::fs::read_to_string(path).expect("readable"),
        Err(_) => include_str!("../../testdata/pairs.json").to_owned(),
    };
    serde_json::from_str(&text).expect("JSON")
}

/// Objects in both forms.
fn pairs() -> Vec<(String, Value, Vec<u8>)> {
    let all = recorded();
    let one = |p: &Value| {
        let bytes = STANDARD.decode(p["protobuf"].as_str().expect("text")).expect("base64");
        (p["path"].as_str().unwrap_or_default().to_owned(), p["json"].clone(), bytes)
    };
    all["pairs"].as_array().expect("a list").iter().map(one).collect()
}

/// Reads a message into the form that its JSON has.
fn read(bytes: &[u8], like: &Value) -> Value {
    let mut out = from_protobuf("", bytes).unwrap_or_else(|e| e.into());
    let schema = find("", like["apiVersion"].as_str().unwrap_or(""), like["kind"].as_str().unwrap_or(""));
    crate::complete(schema.map_or("", |s| s.name()), &mut out);
    if like["items"] == json!([]) && out["items"].as_array().is_none_or(Vec::is_empty) {
        out["items"] = json!([]);
    }
    out
}

/// Where two messages part.
fn difference(got: &[u8], want: &[u8]) -> String {
    let at = got.iter().zip(want).take_while(|(a, b)| a == b).count();
    let shown = |b: &[u8]| String::from_utf8_lossy(&b[at.saturating_sub(20)..(at + 30).min(b.len())]).into_owned();
    format!("at {at} of {}\n  got  {:?}\n  want {:?}", want.len(), shown(got), shown(want))
}

#[test]
fn agrees_with_a_real_server_in_both_directions() {
    let (mut wrong, mut equal, mut apart) = (Vec::new(), 0, 0);
    let all = pairs();
    for (path, json, bytes) in &all {
        let back = read(bytes, json);
        let written = to_protobuf("", json).unwrap_or_else(|e| e.into_bytes());
        // Some objects changed between the two recordings: there each form is read and written again.
        let together = json["metadata"]["resourceVersion"] == back["metadata"]["resourceVersion"];
        let mut check = |what: &str, fine: bool, why: &dyn Fn() -> String| {
            if !fine {
                wrong.push(format!("{path}: {what}: {}", why()));
            }
        };
        // Raw JSON keeps the spaces its client sent; ours has none.
        let raw = json["kind"] == "ControllerRevision";
        if together {
            equal += 1;
            check("back", back == *json, &|| format!("\n  got  {back}\n  want {json}"));
            check("out", raw || written == *bytes, &|| difference(&written, bytes));
        } else {
            apart += 1;
            let again = to_protobuf("", &back).unwrap_or_else(|e| e.into_bytes());
            check("out again", raw || again == *bytes, &|| difference(&again, bytes));
        }
        if raw || !together {
            let again = read(&written, json);
            check("back again", again == *json, &|| format!("\n  got  {again}\n  want {json}"));
        }
    }
    println!("{equal} pairs are equal, {apart} were recorded apart and go there and back, of {}", all.len());
    assert!(equal >= 8, "compared only {equal}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn lists_are_written_item_by_item() {
    for (path, json, bytes) in pairs() {
        let (Some(items), Some(kind)) = (json["items"].as_array(), json["kind"].as_str()) else { continue };
        let (version, kind) = (json["apiVersion"].as_str().unwrap_or(""), kind.strip_suffix("List").unwrap_or(kind));
        let (group, version_only) = version.split_once('/').unwrap_or(("", version));
        let schema = crate::schema_name(group, version_only, kind).expect("an item's schema");
        let mut list = ListMessage::new(&json["metadata"]).expect("metadata");
        items.iter().for_each(|item| list.push(&message(schema, item).expect("a message")));
        assert!(list.finish(version, &format!("{kind}List")) == bytes, "{path}");
    }
    let empty = ListMessage::new(&json!({"resourceVersion": "7"})).expect("metadata").finish("v1", "PodList");
    let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": []});
    assert_eq!(to_protobuf("", &list), Ok(empty));
}

/// Type and envelope of each frame of a watch stream.
fn frames(mut stream: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    while let Some((length, rest)) = stream.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        stream = rest;
        let event = fields(frame);
        let object = fields(&event[1].1).remove(0).1;
        out.push((String::from_utf8(event[0].1.clone()).expect("a type"), object));
    }
    out
}

/// The length-delimited fields of a message.
fn fields(mut message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut out = Vec::new();
    while let [tag, rest @ ..] = message {
        let (mut length, mut at) = (0usize, 0);
        while {
            length |= usize::from(rest[at] & 0x7f) << (7 * at);
            at += 1;
            rest[at - 1] >= 0x80
        } {}
        out.push((tag >> 3, rest[at..at + length].to_vec()));
        message = &rest[at + length..];
    }
    out
}

#[test]
fn a_recorded_watch_is_framed_the_same() {
    let stream = STANDARD.decode(recorded()["watch"]["bytes"].as_str().expect("recorded")).expect("base64");
    let (mut out, frames) = (Vec::new(), frames(&stream));
    for (event, envelope) in &frames {
        let object = from_protobuf("", envelope).expect("an object");
        out.extend(watch_event_protobuf(event, &to_protobuf("", &object).expect("writes")));
    }
    assert!(frames.iter().any(|(event, _)| event == "BOOKMARK"));
    assert_eq!(out, stream);
}

#[test]
fn frames_watch_events() {
    assert_eq!(watch_event_protobuf("ADDED", b"xy"), b"\0\0\0\x0d\x0a\x05ADDED\x12\x04\x0a\x02xy");
}

#[test]
fn reads_what_others_leave_out_and_refuses_rubbish() {
    let map = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": "http"}]}});
    let bytes = to_protobuf("", &map).expect("writes");
    assert_eq!(
        from_protobuf("", &bytes).map(|v| v["spec"]["ports"][0].clone()),
        Ok(json!({"port": 80, "targetPort": "http"}))
    );
    for cut in 0..bytes.len() {
        let _ = from_protobuf("", &bytes[..cut]);
    }
    assert!(from_protobuf("", b"{}").is_err());
    assert!(to_protobuf("", &json!({"apiVersion": "x.io/v1", "kind": "Widget"})).is_err());
    assert!(to_protobuf("", &json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table"})).is_err());
    assert!(to_protobuf("", &json!({"apiVersion": "v1", "kind": "Pod", "spec": 5})).is_err());
}
