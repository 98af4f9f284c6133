//! What a clumsy user types gets Kubernetes' own answer.

use anyhow::Result;
use e2e::Cluster;

#[test]
fn errors_are_those_of_kubernetes() -> Result<()> {
    let cluster = Cluster::up("e2e-bad-input")?;
    let check_with = |flags: &[&str], manifest: &str, wants: &[&str]| -> Result<()> {
        let error = cluster.apply_with(manifest, flags).expect_err("must fail").to_string();
        for want in wants {
            assert!(error.contains(want), "{want:?} is missing:\n{error}");
        }
        Ok(())
    };
    let check = |manifest: &str, wants: &[&str]| check_with(&[], manifest, wants);
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: Bad_Name}\nspec: {restartPolicy: Often, containers: [{name: a, image: ''}, {name: a, image: b}]}\n",
        &["metadata.name: Invalid value: \"Bad_Name\"", "spec.containers[0].image: Required value", "spec.containers[1].name: Duplicate value: \"a\"", "spec.restartPolicy: Unsupported value: \"Often\""],
    )?;
    // Where the field is named depends on the kubectl: before 1.27 it looks into the OpenAPI document itself.
    check("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {container: []}\n", &["unknown field", "container\""])?;
    check_with(&["--validate=false"], "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: many}\n", &["cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"])?;
    let missing = cluster.try_kubectl(&["get", "pod", "nowhere"])?;
    assert_eq!(String::from_utf8_lossy(&missing.stderr).trim(), "Error from server (NotFound): pods \"nowhere\" not found");
    let denied = cluster.try_kubectl(&["get", "pods", "--as=nobody"])?;
    assert!(String::from_utf8_lossy(&denied.stderr).contains("pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""));
    Ok(())
}
