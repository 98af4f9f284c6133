//! From the text tables to Rust constants.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// One schema of `types.txt`.
pub struct Schema {
    /// Full name, `io.k8s.api.core.v1.Pod`.
    pub name: String,
    pub atomic: bool,
    pub gvk: String,
    pub fields: Vec<Field>,
}

/// One field line.
pub struct Field {
    pub name: String,
    number: u16,
    pub ty: String,
    flags: String,
    merge: [String; 5],
    default: String,
}

pub fn parse(text: &str) -> Vec<Schema> {
    let mut schemas: Vec<Schema> = Vec::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let column = |i: usize| columns.get(i).copied().unwrap_or("").to_owned();
        if let Some(name) = line.strip_prefix('@') {
            let name = full_name(name.split('\t').next().unwrap_or(name));
            schemas.push(Schema { name, atomic: column(1) == "atomic", gvk: column(2), fields: Vec::new() });
        } else if let Some(schema) = schemas.last_mut() {
            schema.fields.push(Field {
                name: column(0),
                number: column(1).parse().unwrap_or(0),
                ty: column(2),
                flags: column(3),
                merge: [column(4), column(5), column(6), column(7), column(8)],
                default: column(9),
            });
        }
    }
    schemas.sort_by(|a, b| a.name.cmp(&b.name));
    schemas
}

/// `io.k8s.api.core.v1.Pod` of `core/v1.Pod`; a leading `@` or `*` is passed over.
pub fn full_name(short: &str) -> String {
    let short = short.trim_start_matches(['*', '@']);
    let (package, kind) = short.rsplit_once('.').expect("package.Name");
    let package = package.replace('/', ".");
    match package.split('.').next() {
        Some("apiextensions") => format!("io.k8s.apiextensions-apiserver.pkg.apis.{package}.{kind}"),
        Some("apiregistration") => format!("io.k8s.kube-aggregator.pkg.apis.{package}.{kind}"),
        Some("meta") => format!("io.k8s.apimachinery.pkg.apis.{package}.{kind}"),
        Some("runtime") => format!("io.k8s.apimachinery.pkg.{package}.{kind}"),
        _ => format!("io.k8s.api.{package}.{kind}"),
    }
}

/// Interned strings: one blob, found again by offset and length.
#[derive(Default)]
struct Text {
    blob: String,
    seen: HashMap<String, u32>,
}

impl Text {
    fn put(&mut self, text: &str) -> String {
        let at = *self.seen.entry(text.to_owned()).or_insert_with(|| {
            let at = self.blob.len() as u32;
            self.blob.push_str(text);
            at
        });
        format!("Text({at},{})", text.len())
    }
}

/// The types met so far, each once.
#[derive(Default)]
struct Types {
    rows: Vec<String>,
    seen: HashMap<String, usize>,
}

impl Types {
    fn put(&mut self, expr: &str, text: &mut Text, index: &HashMap<String, usize>) -> usize {
        if let Some(at) = self.seen.get(expr) {
            return *at;
        }
        let row = self.row(expr, text, index);
        self.rows.push(row);
        self.seen.insert(expr.to_owned(), self.rows.len() - 1);
        self.rows.len() - 1
    }

    fn row(&mut self, expr: &str, text: &mut Text, index: &HashMap<String, usize>) -> String {
        let (pointer, expr) = expr.strip_prefix('*').map_or((false, expr), |rest| (true, rest));
        let (go, expr) = match expr.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
            Some((go, rest)) => (go, rest),
            None => ("", expr),
        };
        let (mut key, mut of) = ("", 0);
        let kind = if let Some(rest) = expr.strip_prefix("[]") {
            of = self.put(rest, text, index);
            "List"
        } else if let Some((k, rest)) = expr.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            key = k;
            of = self.put(rest, text, index);
            "Map"
        } else if let Some(name) = expr.strip_prefix('@') {
            of = *index.get(&full_name(name)).unwrap_or_else(|| panic!("unknown schema {name}"));
            "Struct"
        } else {
            scalar(expr)
        };
        format!("TypeRow{{kind:Kind::{kind},pointer:{pointer},go:{},key:{},of:{of}}}", text.put(go), text.put(key))
    }
}

fn scalar(expr: &str) -> &'static str {
    match expr {
        "s" => "String",
        "b" => "Bool",
        "i" => "Int32",
        "l" => "Int64",
        "f" => "Float64",
        "y" => "Bytes",
        "J" | "!J" => "Json",
        "!Q" => "Quantity",
        "!I" => "IntOrString",
        "!T" => "Time",
        "!U" => "MicroTime",
        "!D" => "Duration",
        "!R" => "RawExtension",
        "!V" => "FieldsV1",
        "!A" => "SchemaOrArray",
        "!B" => "SchemaOrBool",
        "!S" => "SchemaOrStrings",
        other => panic!("unknown type {other}"),
    }
}

fn flags(flags: &str) -> u8 {
    "oznre".chars().enumerate().filter(|(_, c)| flags.contains(*c)).map(|(i, _)| 1 << i).sum()
}

pub fn types(schemas: &[Schema]) -> String {
    let index: HashMap<String, usize> = schemas.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect();
    let (mut text, mut types) = (Text::default(), Types::default());
    let mut facts: BTreeMap<[String; 5], usize> = BTreeMap::new();
    facts.insert(Default::default(), 0);
    let (mut schema_rows, mut field_rows, mut count) = (String::new(), String::new(), 0usize);
    for schema in schemas {
        let name = text.put(&schema.name);
        let gvk = text.put(&schema.gvk);
        let len = schema.fields.len();
        let _ = writeln!(
            schema_rows,
            "SchemaRow{{name:{name},gvk:{gvk},first:{count},len:{len},atomic:{}}},",
            schema.atomic
        );
        count += len;
        for f in &schema.fields {
            let next = facts.len();
            let fact = *facts.entry(f.merge.clone()).or_insert(next);
            let (name, default) = (text.put(&f.name), text.put(&f.default));
            let ty = types.put(&f.ty, &mut text, &index);
            let (number, flags) = (f.number, flags(&f.flags));
            let _ = writeln!(
                field_rows,
                "FieldRow{{name:{name},default:{default},ty:{ty},number:{number},flags:{flags},facts:{fact}}},"
            );
        }
    }
    let mut fact_rows: Vec<(usize, [String; 5])> = facts.into_iter().map(|(k, v)| (v, k)).collect();
    fact_rows.sort();
    let fact_rows: String = fact_rows.iter().map(|(_, f)| fact_row(f)).collect();
    format!(
        "static TEXT: &str = {:?};\nstatic SCHEMAS: [SchemaRow; {}] = [{schema_rows}];\n\
         static FIELDS: [FieldRow; {count}] = [{field_rows}];\nstatic TYPES: [TypeRow; {}] = [{}];\n\
         static FACTS: &[Facts] = &[{fact_rows}];\n",
        text.blob,
        schemas.len(),
        types.rows.len(),
        types.rows.join(",\n"),
    )
}

fn fact_row([strategy, merge_key, list_type, keys, map_type]: &[String; 5]) -> String {
    let keys: Vec<&str> = keys.split(',').filter(|k| !k.is_empty()).collect();
    format!(
        "Facts{{patch_strategy:{strategy:?},patch_merge_key:{merge_key:?},list_type:{list_type:?},\
         list_map_keys:&{keys:?},map_type:{map_type:?}}},\n"
    )
}

/// The values of named string types, by package and name.
pub fn enums(text: &str) -> String {
    let mut rows: Vec<(&str, Vec<&str>)> =
        text.lines().filter_map(|l| l.split_once('\t')).map(|(name, values)| (name, values.split(',').collect())).collect();
    rows.sort();
    let rows: String = rows.iter().map(|(name, values)| format!("({name:?},&{values:?}),\n")).collect();
    format!("static ENUMS: &[(&str, &[&str])] = &[{rows}];\n")
}

pub fn resources(text: &str) -> String {
    let mut rows = String::new();
    for line in text.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let column = |i: usize| columns.get(i).copied().unwrap_or("");
        let list = |i: usize| column(i).split(',').filter(|s| !s.is_empty()).collect::<Vec<_>>();
        let (resource, subresource) = column(2).split_once('/').unwrap_or((column(2), ""));
        let (gv, kind) = column(3).rsplit_once(' ').unwrap_or(("", column(3)));
        let (kind_group, kind_version) = match gv.split_once('/') {
            Some(pair) => pair,
            None => own_group(column(0), column(1), kind),
        };
        let _ = writeln!(
            rows,
            "ResourceFact{{group:{:?},version:{:?},resource:{resource:?},subresource:{subresource:?},kind:{kind:?},\
             kind_group:{kind_group:?},kind_version:{kind_version:?},namespaced:{},verbs:&{:?},short_names:&{:?},\
             categories:&{:?},singular:{:?}}},",
            column(0),
            column(1),
            column(4) == "Namespaced",
            list(5),
            list(6),
            list(7),
            column(8),
        );
    }
    format!("static RESOURCES: &[ResourceFact] = &[{rows}];\n")
}

/// Kinds that live in another group than the resource that serves them.
fn own_group<'a>(group: &'a str, version: &'a str, kind: &str) -> (&'a str, &'a str) {
    match kind {
        "Scale" => ("autoscaling", "v1"),
        "Eviction" => ("policy", "v1"),
        "TokenRequest" => ("authentication.k8s.io", "v1"),
        _ => (group, version),
    }
}
