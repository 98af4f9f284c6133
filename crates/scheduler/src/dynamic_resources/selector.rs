//! Selectors of classes and requests: expressions over `device`.

use api::k8s::resource::v1::{Device, DeviceClass, DeviceSelector};
use api::quantity::Quantity;
use expression::library::{quantity, semver};
use expression::{Bindings, DeclType, Env, Evaluation, Key, Map, Program, Text, Value, compile};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// What one evaluation may cost.
const BUDGET: u64 = 1_000_000;

static ENVIRONMENT: LazyLock<Env> = LazyLock::new(|| {
    let values = || DeclType::map(DeclType::map(DeclType::dynamic()));
    let fields = [
        ("driver", DeclType::string()),
        ("allowMultipleAllocations", DeclType::boolean()),
        ("attributes", values()),
        ("capacity", values()),
    ];
    Env::new().variable("device", DeclType::object("kubernetes.DRADevice", fields))
});

/// The selectors of one request, those of its class first.
pub(crate) struct Selectors(Vec<(String, Result<Program, String>)>);

impl Selectors {
    /// Compiles them; what does not compile is an error once a device is looked at, as for a class nobody uses.
    pub fn new(claim: &str, class: &DeviceClass, of_request: Option<&Vec<DeviceSelector>>) -> Self {
        let class_name = class.metadata.name.as_deref().unwrap_or_default();
        let of_class = class.spec.selectors.iter().flatten().enumerate();
        let of_class = of_class.map(|(at, s)| (format!("class {class_name}: selector #{at}"), s));
        let own = of_request.into_iter().flatten().enumerate();
        let own = own.map(|(at, s)| (format!("claim {claim}: selector #{at}"), s));
        Self(of_class.chain(own).map(|(place, selector)| (place, program(selector))).collect())
    }

    /// Whether all hold for a device of a driver.
    pub fn match_device(&self, driver: &str, device: &Device) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let value = value(driver, device)?;
        for (place, program) in &self.0 {
            let program = program.as_ref().map_err(|e| format!("{place}: CEL compile error: {e}"))?;
            let Evaluation { value, .. } = program.eval(&Bindings::new().set("device", value.clone()), BUDGET);
            let value = value.map_err(|e| format!("{place}: CEL runtime error: {e}"))?;
            match value.as_bool() {
                Some(true) => {}
                Some(false) => return Ok(false),
                None => return Err(format!("{place}: CEL runtime error: the result is not a bool")),
            }
        }
        Ok(true)
    }
}

fn program(selector: &DeviceSelector) -> Result<Program, String> {
    let text = selector.cel.as_ref().map(|c| c.expression.as_str());
    let text = text.ok_or("CEL expression empty (unsupported selector type?)")?;
    compile(text, &ENVIRONMENT).map_err(|e| format!("compilation failed: {e}"))
}

/// The variable `device`.
fn value<'a>(driver: &'a str, device: &'a Device) -> Result<Value<'a>, String> {
    let mut attributes = Domains::default();
    for (name, attribute) in device.attributes.iter().flatten() {
        let value = match attribute {
            a if a.int.is_some() => a.int.map(Value::Int),
            a if a.bool.is_some() => a.bool.map(Value::Bool),
            a if a.string.is_some() => a.string.as_deref().map(|s| Value::String(Text::Borrowed(s))),
            a => a.version.as_deref().and_then(semver::value),
        };
        attributes.add(driver, name, value.ok_or_else(|| format!("attribute {name}: unsupported attribute value"))?);
    }
    let mut capacity = Domains::default();
    for (name, amount) in device.capacity.iter().flatten() {
        let amount = Quantity::parse(&amount.value.0).map_err(|e| format!("capacity {name}: {e}"))?;
        capacity.add(driver, name, quantity::value(amount));
    }
    let fields = [
        ("driver", Value::String(Text::Borrowed(driver))),
        ("allowMultipleAllocations", Value::Bool(device.allow_multiple_allocations == Some(true))),
        ("attributes", attributes.finish()),
        ("capacity", capacity.finish()),
    ];
    let entries = fields.map(|(name, value)| (Key::String(Text::Shared(Arc::from(name))), value));
    Ok(Value::Map(Map::values(BTreeMap::from(entries))))
}

/// Values by domain and name.
#[derive(Default)]
struct Domains<'a>(BTreeMap<&'a str, BTreeMap<Key<'a>, Value<'a>>>);

impl<'a> Domains<'a> {
    fn add(&mut self, driver: &'a str, name: &'a str, value: Value<'a>) {
        let (domain, name) = qualified(driver, name);
        self.0.entry(domain).or_default().insert(Key::String(Text::Borrowed(name)), value);
    }

    fn finish(self) -> Value<'a> {
        let domain = |(name, values)| (Key::String(Text::Borrowed(name)), Value::Map(Map::values(values)));
        Value::Map(Map::domains(self.0.into_iter().map(domain).collect()))
    }
}

/// Domain and name; without a domain it is the driver's.
pub(crate) fn qualified<'a>(driver: &'a str, name: &'a str) -> (&'a str, &'a str) {
    name.split_once('/').unwrap_or((driver, name))
}
