//! Bodies of YAML.

use super::*;
use std::fmt::Write;

fn live_yaml(text: &str) -> Call {
    call("POST", CONFIG_MAPS, YAML, text.to_owned())
}

fn aliases() -> Call {
    let mut text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\na0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for i in 1..60 {
        let before = vec![format!("*a{}", i - 1); 9].join(",");
        // Writing to a string does not fail.
        let _ = writeln!(text, "a{i}: &a{i} [{before}]");
    }
    live_yaml(&text)
}

fn wide_aliases() -> Call {
    let scalar = "x".repeat(BODY / 2);
    let many = repeat(BODY / 2 - 256, |i| format!("k{i}: *a"));
    live_yaml(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\nx: &a {scalar}\ndata: {{{many}}}\n"))
}

/// The cases.
pub fn cases() -> Vec<Case> {
    const HEAD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
    vec![
        case!(
            "yaml: keys",
            live_yaml(&format!(
                "{HEAD}data:\n{}",
                (0..BODY / 13).map(|i| format!(" k{i:06}: ''\n")).collect::<String>()
            ))
        ),
        case!(
            "yaml: flow keys",
            live_yaml(&format!("{HEAD}data: {{{}}}", repeat(BODY - 128, |i| format!("k{i:06}: ''"))))
        ),
        case!("yaml: one key often", live_yaml(&format!("{HEAD}data:\n{}", " k: ''\n".repeat(BODY / 8)))),
        case!(
            "yaml: a long scalar",
            live_yaml(&format!("{HEAD}data:\n a: |\n{}", "  xxxxxxxxxxxxxxxxxxxxxxx\n".repeat(BODY / 26)))
        ),
        case!("yaml: a folded scalar", live_yaml(&format!("{HEAD}data:\n a: >\n{}", "  x\n\n".repeat(BODY / 6)))),
        case!("yaml: a quoted scalar", live_yaml(&format!("{HEAD}data:\n a: \"{}\"", "\\x41".repeat(BODY / 4)))),
        case!("yaml: aliases of aliases", aliases()),
        case!("yaml: aliases of a long scalar", wide_aliases()),
        case!(
            "yaml: anchors",
            live_yaml(&format!(
                "{HEAD}data:\n{}",
                (0..BODY / 20).map(|i| format!(" k{i}: &a{i} x\n")).collect::<String>()
            ))
        ),
        case!(
            "yaml: nested flow",
            live_yaml(&format!("{HEAD}a: {}{}", "[".repeat(BODY / 2 - 64), "]".repeat(BODY / 2 - 64)))
        ),
        case!(
            "yaml: nested blocks",
            live_yaml(&format!(
                "{HEAD}a:\n{}",
                (1..2400).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>()
            ))
        ),
        case!("yaml: dashes", live_yaml(&format!("{HEAD}a:\n - {}x", "- ".repeat(BODY / 2 - 64)))),
        case!("yaml: empty items", live_yaml(&format!("{HEAD}a:\n{}", " -\n".repeat(BODY / 3 - 64)))),
        case!("yaml: comments", live_yaml(&format!("{HEAD}{}", "#\n".repeat(BODY / 2 - 64)))),
        case!("yaml: documents", live_yaml(&format!("{HEAD}{}", "---\n".repeat(BODY / 4 - 64)))),
        case!(
            "yaml: merge keys",
            live_yaml(&format!("{HEAD}b: &b {{x: y}}\ndata:\n{}", " <<: *b\n".repeat(BODY / 8 - 64)))
        ),
        case!("yaml: numbers", live_yaml(&format!("{HEAD}a: [{}]", repeat(BODY - 128, |_| "1".into())))),
    ]
}
