//! Views of the constant tables: schemas, fields, types.

/// What a value is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string, perhaps of a named Go type.
    String,
    /// true or false.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point.
    Float64,
    /// Bytes, base64 in JSON.
    Bytes,
    /// A list of [`Type::element`].
    List,
    /// A map from strings to [`Type::element`].
    Map,
    /// The fields of [`Type::schema`].
    Struct,
    /// A quantity.
    Quantity,
    /// An integer or a string.
    IntOrString,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// A Go duration, `1m30s`.
    Duration,
    /// Any object, kept as it is.
    RawExtension,
    /// A field set of managedFields.
    FieldsV1,
    /// Any JSON.
    Json,
    /// A JSON schema or a list of them.
    SchemaOrArray,
    /// A JSON schema or true or false.
    SchemaOrBool,
    /// A JSON schema or a list of strings.
    SchemaOrStrings,
}

/// Merge facts of a field; empty strings where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `merge`, `replace`, `retainKeys`, `merge,retainKeys`.
    pub patch_strategy: &'static str,
    /// Key of list elements in strategic merge patches.
    pub patch_merge_key: &'static str,
    /// `atomic`, `set`, `map`.
    pub list_type: &'static str,
    /// Keys of list elements in server-side apply.
    pub list_map_keys: &'static [&'static str],
    /// `atomic`, `granular`.
    pub map_type: &'static str,
}

/// A string in [`TEXT`]: offset, length.
#[derive(Clone, Copy)]
struct Text(u32, u16);

impl Text {
    fn get(self) -> &'static str {
        let from = self.0 as usize;
        &TEXT[from..from + self.1 as usize]
    }
}

struct SchemaRow {
    name: Text,
    gvk: Text,
    first: u16,
    len: u8,
    atomic: bool,
}

struct FieldRow {
    name: Text,
    default: Text,
    ty: u16,
    number: u16,
    flags: u8,
    facts: u8,
}

struct TypeRow {
    kind: Kind,
    pointer: bool,
    go: Text,
    key: Text,
    of: u16,
}

include!(concat!(env!("OUT_DIR"), "/types.rs"));

/// A definition with its fields.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Schema(u16);

/// A field of a schema.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field(u16);

/// The type of a field or element.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Type(u16);

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Schema {
    /// The schema of a full name, `io.k8s.api.core.v1.Pod`.
    pub fn find(name: &str) -> Option<Self> {
        SCHEMAS.binary_search_by(|row| row.name.get().cmp(name)).ok().map(|i| Self(i as u16))
    }

    /// The schema of a kind; kinds of every group (`Status`, `DeleteOptions`) are found in any.
    pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<Self> {
        let own = match group {
            "" => format!("io.k8s.api.core.{version}.{kind}"),
            "apiextensions.k8s.io" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}"),
            "apiregistration.k8s.io" => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{version}.{kind}"),
            "meta.k8s.io" => format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{kind}"),
            _ => format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or(group)),
        };
        let shared = || {
            let schema = Self::find(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"))?;
            (schema.gvk() == "(many)" || schema.gvk() == format!("{group}/{version}/{kind}")).then_some(schema)
        };
        Self::find(&own).or_else(shared)
    }

    /// Every schema, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SCHEMAS.len() as u16).map(Self)
    }

    fn row(self) -> &'static SchemaRow {
        &SCHEMAS[self.0 as usize]
    }

    /// Full name.
    pub fn name(self) -> &'static str {
        self.row().name.get()
    }

    /// Name as Go prints it, `v1.Pod`.
    pub fn go_name(self) -> &'static str {
        let name = self.name();
        let kind = name.rfind('.').unwrap_or(0);
        name[..kind].rfind('.').map_or(name, |package| &name[package + 1..])
    }

    /// Last part of the name, `Pod`.
    pub fn kind_name(self) -> &'static str {
        self.name().rsplit('.').next().unwrap_or_default()
    }

    /// `group/version/kind` of a kind, `(many)` for those of every group, empty for parts.
    pub fn gvk(self) -> &'static str {
        self.row().gvk.get()
    }

    /// Whether server-side apply owns it as a whole.
    pub fn is_atomic(self) -> bool {
        self.row().atomic
    }

    /// Its own fields in Go's order; embedded structs appear as inline fields.
    pub fn fields(self) -> impl DoubleEndedIterator<Item = Field> {
        let row = self.row();
        (row.first..row.first + u16::from(row.len)).map(Field)
    }

    /// The field of a JSON name, looked for in embedded structs too.
    pub fn field(self, name: &str) -> Option<Field> {
        let mut inlined = Vec::new();
        for field in self.fields() {
            if field.is_inline() {
                inlined.extend(field.ty().schema());
            } else if field.name() == name {
                return Some(field);
            }
        }
        inlined.into_iter().find_map(|s| s.field(name))
    }

    /// Names of the embedded structs that a JSON field is found through, outermost first.
    pub(crate) fn embedded_path(self, field: Field) -> Vec<&'static str> {
        if self.fields().any(|own| own == field) {
            return Vec::new();
        }
        let mut embedded = self.fields().filter(|f| f.is_inline()).filter_map(|f| f.ty().schema());
        let Some(part) = embedded.find(|part| part.flat_fields().contains(&field)) else { return Vec::new() };
        std::iter::once(part.kind_name()).chain(part.embedded_path(field)).collect()
    }

    /// Its JSON fields, those of embedded structs included.
    pub fn flat_fields(self) -> Vec<Field> {
        let mut out = Vec::new();
        for field in self.fields() {
            match field.ty().schema().filter(|_| field.is_inline()) {
                Some(embedded) => out.extend(embedded.flat_fields()),
                None => out.push(field),
            }
        }
        out
    }

    /// Line of its description; those of its fields follow.
    pub(crate) fn line(self) -> usize {
        self.0 as usize + self.row().first as usize
    }
}

impl Field {
    fn row(self) -> &'static FieldRow {
        &FIELDS[self.0 as usize]
    }

    fn flag(self, bit: u8) -> bool {
        self.row().flags & (1 << bit) != 0
    }

    /// JSON name, empty for embedded structs.
    pub fn name(self) -> &'static str {
        self.row().name.get()
    }

    /// Protobuf field number, 0 when it is not sent.
    pub fn number(self) -> u32 {
        u32::from(self.row().number)
    }

    /// Type.
    pub fn ty(self) -> Type {
        Type(self.row().ty)
    }

    /// Whether JSON leaves it out when empty.
    pub fn is_omitempty(self) -> bool {
        self.flag(0)
    }

    /// Whether JSON leaves it out when it is the zero struct.
    pub fn is_omitzero(self) -> bool {
        self.flag(1)
    }

    /// Whether it is an embedded struct whose fields appear in place.
    pub fn is_inline(self) -> bool {
        self.flag(2)
    }

    /// Whether the schema requires it.
    pub fn is_required(self) -> bool {
        self.flag(3)
    }

    /// Whether an empty list or map is told from an absent one until the object is stored.
    pub fn tells_empty(self) -> bool {
        self.flag(4)
    }

    /// Default declared in the schema.
    pub fn default(self) -> Option<serde_json::Value> {
        let text = self.row().default.get();
        if text.is_empty() { None } else { serde_json::from_str(text).ok() }
    }

    /// Merge facts.
    pub fn facts(self) -> &'static Facts {
        &FACTS[self.row().facts as usize]
    }

    /// Line of its description.
    pub(crate) fn line(self) -> usize {
        let schema = SCHEMAS.partition_point(|s| s.first <= self.0);
        self.0 as usize + schema
    }
}

impl Field {
    /// Values of the named string type that it, or each element of it, has; empty: any.
    pub fn enumeration(self) -> &'static [&'static str] {
        let ty = self.ty();
        let named = if ty.kind() == Kind::List { ty.element() } else { Some(ty) };
        let Some(named) = named.filter(|t| t.kind() == Kind::String) else { return &[] };
        let Some((_, name)) = named.row().go.get().split_once('.') else { return &[] };
        let owner = SCHEMAS.partition_point(|s| s.first <= self.0) - 1;
        // `io.k8s.api.apps.v1.StatefulSetSpec` is of `apps/v1`
        let mut parts = SCHEMAS[owner].name.get().rsplit('.').skip(1);
        let (version, group) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let of = |package: &str| {
            let key = format!("{package}.{name}");
            ENUMS.binary_search_by(|(known, _)| (*known).cmp(&key)).ok().map(|at| ENUMS[at].1)
        };
        of(&format!("{group}/{version}")).or_else(|| of("core/v1")).unwrap_or_default()
    }
}

impl Type {
    fn row(self) -> &'static TypeRow {
        &TYPES[self.0 as usize]
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        self.row().kind
    }

    /// Whether Go holds a pointer, so that absent differs from zero.
    pub fn is_pointer(self) -> bool {
        self.row().pointer
    }

    /// Element of a list or map.
    pub fn element(self) -> Option<Self> {
        matches!(self.kind(), Kind::List | Kind::Map).then(|| Self(self.row().of))
    }

    /// Schema of a struct.
    pub fn schema(self) -> Option<Schema> {
        (self.kind() == Kind::Struct).then(|| Schema(self.row().of))
    }

    /// Schema of the value, or of what a list or map holds.
    pub fn innermost_schema(self) -> Option<Schema> {
        self.element().map_or_else(|| self.schema(), Self::innermost_schema)
    }

    /// The type as Go's decoder names it in errors, pointers left out.
    pub fn go(self) -> String {
        let row = self.row();
        if !row.go.get().is_empty() {
            return row.go.get().to_owned();
        }
        let element =
            || self.element().map_or(String::new(), |e| if e.is_pointer() { format!("*{}", e.go()) } else { e.go() });
        match row.kind {
            Kind::List => format!("[]{}", element()),
            Kind::Map => match row.key.get() {
                "" => format!("map[string]{}", element()),
                key => format!("map[{key}]{}", element()),
            },
            Kind::Struct => Schema(row.of).go_name().to_owned(),
            kind => go_scalar(kind).to_owned(),
        }
    }
}

fn go_scalar(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::Bool => "bool",
        Kind::Int32 => "int32",
        Kind::Int64 => "int64",
        Kind::Float64 => "float64",
        Kind::Bytes => "[]uint8",
        Kind::Quantity => "resource.Quantity",
        Kind::IntOrString => "intstr.IntOrString",
        Kind::Time => "v1.Time",
        Kind::MicroTime => "v1.MicroTime",
        Kind::Duration => "v1.Duration",
        Kind::RawExtension => "runtime.RawExtension",
        Kind::FieldsV1 => "v1.FieldsV1",
        Kind::SchemaOrArray => "v1.JSONSchemaPropsOrArray",
        Kind::SchemaOrBool => "v1.JSONSchemaPropsOrBool",
        Kind::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray",
        Kind::Json | Kind::List | Kind::Map | Kind::Struct => "interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_know_their_types_and_facts() {
        let spec = Schema::find("io.k8s.api.core.v1.PodSpec").expect("served");
        let containers = spec.field("containers").expect("a field");
        assert_eq!((containers.ty().go().as_str(), containers.number()), ("[]v1.Container", 2));
        assert_eq!(containers.facts().patch_merge_key, "name");
        let ports = Schema::find("io.k8s.api.core.v1.Container").and_then(|s| s.field("ports")).expect("a field");
        assert_eq!(ports.facts().patch_merge_key, "containerPort");
        assert_eq!(ports.facts().list_map_keys, ["containerPort", "protocol"]);
        let volume = Schema::find("io.k8s.api.core.v1.Volume").expect("served");
        assert!(volume.field("emptyDir").is_some_and(|f| f.ty().is_pointer()), "embedded fields are found");
        let limits = Schema::find("io.k8s.api.core.v1.ResourceRequirements").and_then(|s| s.field("limits"));
        assert_eq!(limits.map(|f| f.ty().go()), Some("v1.ResourceList".into()));
    }

    #[test]
    fn enumerations_are_found_by_their_package() {
        let check = |schema: &str, field: &str, want: &[&str]| {
            let field = Schema::find(schema).and_then(|s| s.field(field)).expect("a field");
            assert_eq!(field.enumeration(), want, "{schema}");
        };
        check("io.k8s.api.apps.v1.StatefulSetSpec", "podManagementPolicy", &["OrderedReady", "Parallel"]);
        check("io.k8s.api.core.v1.ServiceSpec", "ipFamilies", &["", "IPv4", "IPv6"]);
        check("io.k8s.api.core.v1.PodSpec", "preemptionPolicy", &["Never", "PreemptLowerPriority"]);
        check("io.k8s.api.core.v1.PodSpec", "nodeName", &[]);
    }

    #[test]
    fn description_lines_count_schemas_and_fields() {
        let mut line = 0;
        for schema in Schema::all() {
            assert_eq!(schema.line(), line, "{schema:?}");
            line += 1;
            for field in schema.fields() {
                assert_eq!(field.line(), line, "{schema:?}.{}", field.name());
                line += 1;
            }
        }
    }
}
