//! The expressions of admission: what they see, what they have to give, and their errors.
//!
//! Validation compiles them when they are written; the server compiles them again when it takes an object up.

use expression::library::authorizer::{AUTHORIZER, RESOURCE_CHECK};
use expression::{DeclType, Env, Program, Type, compile};
use std::sync::{Arc, LazyLock};

/// What an expression has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// Anything (variables).
    Anything,
    /// A verdict.
    Bool,
    /// A message.
    Text,
    /// The value of an audit annotation, or nothing.
    TextOrNull,
    /// An apply configuration.
    Configuration,
    /// A list of JSON patch operations.
    Patches,
}

/// What the objects of a request are known to be.
#[derive(Clone, Debug, Default)]
pub struct Types {
    /// `object` and `oldObject`.
    pub object: Option<Arc<DeclType>>,
    /// `params`.
    pub params: Option<Arc<DeclType>>,
}

/// Compiles the expressions of one webhook or policy.
pub struct Compiler {
    env: Env,
}

impl Compiler {
    /// A compiler of expressions about objects of any kind, and about `params` where there are some.
    pub fn new(params: bool) -> Self {
        Self::typed(params, &Types::default())
    }

    /// A compiler of expressions about objects of known types.
    pub fn typed(params: bool, types: &Types) -> Self {
        static BASE: LazyLock<Env> =
            LazyLock::new(|| Env::new().variable("namespaceObject", namespace()).variable("request", request()));
        let object = types.object.clone().unwrap_or_else(DeclType::dynamic);
        let mut env = BASE.clone().variable("object", object.clone()).variable("oldObject", object);
        if params {
            env = env.variable("params", types.params.clone().unwrap_or_else(DeclType::dynamic));
        }
        Self { env }
    }

    /// Lets expressions see `variables`, of which there are none yet.
    #[must_use]
    pub fn with_variables(mut self) -> Self {
        self.env = self.env.with_variables();
        self
    }

    /// Compiles a variable, which later expressions see.
    pub fn variable(&mut self, name: &str, text: &str) -> Result<Program, String> {
        let compiled = self.compile(text, true, Gives::Anything);
        self.env = match &compiled {
            Ok(program) => self.env.clone().composed(name, program.result_type().clone(), program.result_decl()),
            Err(_) => self.env.clone().composed(name, Type::Dyn, None),
        };
        compiled
    }

    /// Compiles an expression, which may see `authorizer` or not; the error is upstream's text.
    pub fn compile(&self, text: &str, authorizer: bool, gives: Gives) -> Result<Program, String> {
        let mut env = self.env.clone();
        if authorizer {
            env = env.variable_type("authorizer", Type::opaque(AUTHORIZER));
            env = env.variable_type("authorizer.requestResource", Type::opaque(RESOURCE_CHECK));
        }
        if matches!(gives, Gives::Configuration | Gives::Patches) {
            env = env.with_mutation();
        }
        let program = compile(text, &env).map_err(|e| e.to_string())?;
        check(program.result_type(), gives)?;
        Ok(program)
    }
}

fn check(found: &Type, gives: Gives) -> Result<(), String> {
    let found = found.runtime_text();
    let wanted: &[&str] = match gives {
        Gives::Anything => return Ok(()),
        Gives::Bool => &["bool"],
        Gives::Text => &["string"],
        Gives::TextOrNull => &["string", "null_type"],
        Gives::Configuration => &["Object"],
        Gives::Patches => &["list(JSONPatch)"],
    };
    match wanted {
        wanted if wanted.contains(&found.as_str()) => Ok(()),
        [one] => Err(format!("must evaluate to {one} but got {found}")),
        several => Err(format!("must evaluate to one of [{}] but got {found}", several.join(" "))),
    }
}

/// `request`: the review without its objects.
fn request() -> Arc<DeclType> {
    let (text, texts) = (DeclType::string, || DeclType::list(DeclType::string()));
    let kind =
        DeclType::object("kubernetes.GroupVersionKind", [("group", text()), ("version", text()), ("kind", text())]);
    let resource = DeclType::object(
        "kubernetes.GroupVersionResource",
        [("group", text()), ("version", text()), ("resource", text())],
    );
    let user = DeclType::object(
        "kubernetes.UserInfo",
        [("username", text()), ("uid", text()), ("groups", texts()), ("extra", DeclType::map(texts()))],
    );
    DeclType::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", DeclType::boolean()),
            ("options", DeclType::dynamic()),
        ],
    )
}

/// `namespaceObject`: what policies may know of a namespace.
fn namespace() -> Arc<DeclType> {
    let (text, time) = (DeclType::string, DeclType::timestamp);
    let (texts, map) = (|| DeclType::list(DeclType::string()), || DeclType::map(DeclType::string()));
    let condition = DeclType::object(
        "kubernetes.NamespaceCondition",
        [("status", text()), ("type", text()), ("lastTransitionTime", time()), ("message", text()), ("reason", text())],
    );
    let metadata = DeclType::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", map()),
            ("annotations", map()),
            ("UID", text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", DeclType::int()),
            ("deletionTimestamp", time()),
            ("generation", DeclType::int()),
            ("resourceVersion", text()),
            ("finalizers", texts()),
        ],
    );
    let status =
        DeclType::object("kubernetes.NamespaceStatus", [("conditions", DeclType::list(condition)), ("phase", text())]);
    let spec = DeclType::object("kubernetes.NamespaceSpec", [("finalizers", texts())]);
    DeclType::object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_give_what_is_wanted() {
        let check = |text: &str, gives: Gives, want: Result<(), &str>| {
            let got = Compiler::new(false).compile(text, true, gives).map(drop);
            assert_eq!(got, want.map_err(str::to_owned), "{text}");
        };
        check("object.a == 1", Gives::Bool, Ok(()));
        check("1 + 1", Gives::Bool, Err("must evaluate to bool but got int"));
        check("request.userInfo.username", Gives::Text, Ok(()));
        check("1", Gives::TextOrNull, Err("must evaluate to one of [string null_type] but got int"));
        check("authorizer.requestResource.check('get').allowed()", Gives::Bool, Ok(()));
        check("Object{metadata: Object.metadata{labels: {'a': 'b'}}}", Gives::Configuration, Ok(()));
        check("[JSONPatch{op: 'remove', path: '/a'}]", Gives::Patches, Ok(()));
    }

    #[test]
    fn variables_see_those_before_them() {
        let mut compiler = Compiler::new(false).with_variables();
        let missing = "compilation failed: ERROR: <input>:1:10: undefined field 'b'\n | variables.b\n | .........^";
        assert_eq!(compiler.variable("a", "variables.b").map(drop), Err(missing.to_owned()));
        assert!(compiler.variable("b", "1").is_ok());
        assert!(compiler.compile("variables.b == 1", false, Gives::Bool).is_ok());
    }
}
