//! Facts collected elsewhere, when `CEL_FACTS` names a file of them: schema, object, expression, and what is expected.

use crate::{Bindings, DeclType, Env, Value, compile};
use serde_json::Value as Json;

#[test]
fn facts() {
    let Ok(path) = std::env::var("CEL_FACTS") else { return };
    let facts: Vec<Json> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut bad, mut good) = (0, 0);
    for fact in &facts {
        let wrong = check(fact);
        match wrong {
            None => good += 1,
            Some(why) => {
                bad += 1;
                println!("{} | {} | {} | {why}", fact["kind"], fact["name"], fact["expr"]);
            }
        }
    }
    println!("good {good} bad {bad}");
    assert_eq!(bad, 0);
}

fn compiles(fact: &Json) -> Option<String> {
    let decl = DeclType::from_schema(&fact["schema"], true)?;
    let env = Env::new().variable("self", decl.clone());
    let env = if fact["opt"] == true { env.optional_variable("oldSelf", decl) } else { env.variable("oldSelf", decl) };
    let got = match compile(fact["expr"].as_str()?, &env) {
        Ok(program) if program.result_type() != &crate::Type::Bool => Some("cel expression must evaluate to a bool".to_owned()),
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    match (fact["expect"].as_str(), got) {
        (None, None) => None,
        (Some(part), Some(error)) if error.contains(part) => None,
        (expect, got) => Some(format!("expected {expect:?}, got {got:?}")),
    }
}

fn check(fact: &Json) -> Option<String> {
    if fact["kind"] == "compile" {
        return compiles(fact);
    }
    let root = fact["root"].as_bool().unwrap_or(true);
    let decl = DeclType::from_schema(&fact["schema"], root)?;
    let env = Env::new().variable("self", decl.clone()).variable("oldSelf", decl.clone());
    let program = match compile(fact["expr"].as_str()?, &env) {
        Ok(program) => program,
        Err(error) if fact["kind"] == "error" && error.to_string().contains(fact["expect"].as_str()?) => return None,
        Err(error) => return Some(error.to_string()),
    };
    if fact["kind"] == "estimate" {
        let max = program.estimate().max;
        return (Some(max) != fact["expect"].as_u64()).then(|| format!("{max} instead of {}", fact["expect"]));
    }
    let bindings = Bindings::new().set("self", Value::typed(&fact["obj"], &decl)).set("oldSelf", Value::typed(&fact["old"], &decl));
    let got = program.eval(&bindings, 10_000_000);
    match (fact["kind"].as_str()?, got.value) {
        ("error", Err(error)) if error.to_string().contains(fact["expect"].as_str()?) => None,
        ("error", Ok(Value::Bool(false))) if fact["expect"].as_str()?.contains("failed rule") => None,
        (_, Err(error)) => Some(format!("error: {error}")),
        ("cost", Ok(Value::Bool(true))) => (Some(got.cost) != fact["expect"].as_u64()).then(|| format!("{} instead of {}", got.cost, fact["expect"])),
        ("valid", Ok(Value::Bool(true))) => None,
        (_, Ok(value)) => Some(format!("{value:?}")),
    }
}
