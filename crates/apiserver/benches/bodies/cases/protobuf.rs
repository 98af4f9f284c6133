//! Protobuf messages.

use super::*;

/// A message: field numbers and lengths are small here.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

fn protobuf(path: &str, kind: &str, object: &[u8]) -> Call {
    let type_meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
    let body = [b"k8s\0".to_vec(), field(1, &type_meta), field(2, object)].concat();
    call("POST", path, PROTOBUF, body)
}

fn many(item: &[u8]) -> Vec<u8> {
    item.repeat((BODY - 64) / item.len())
}

/// The cases.
pub fn cases() -> Vec<Case> {
    vec![
        case!("protobuf: config map keys", {
            let mut object = field(1, &field(1, b"c"));
            for i in 0..(BODY - 64) / 13 {
                object.extend(field(2, &[field(1, format!("k{i:06}").as_bytes()), field(2, b"")].concat()));
            }
            protobuf(CONFIG_MAPS, "ConfigMap", &object)
        }),
        case!("protobuf: empty containers", protobuf(PODS, "Pod", &field(2, &many(&[0x12, 0])))),
        case!("protobuf: empty volumes", protobuf(PODS, "Pod", &field(2, &many(&[0x0a, 0])))),
        case!("protobuf: empty environment", protobuf(PODS, "Pod", &field(2, &field(2, &many(&[0x3a, 0]))))),
        case!("protobuf: empty arguments", protobuf(PODS, "Pod", &field(2, &field(2, &many(&[0x22, 0]))))),
        case!("protobuf: unknown fields", protobuf(PODS, "Pod", &many(&[0x78, 0]))),
        case!("protobuf: empty owners", protobuf(PODS, "Pod", &field(1, &many(&[0x6a, 0])))),
    ]
}
