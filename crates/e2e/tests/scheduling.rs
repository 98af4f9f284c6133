//! What keeps pods from a node besides its room: volumes for one user, and limits of CSI drivers.

use anyhow::Result;
use e2e::{Cluster, image, wait};

fn volume(name: &str, mode: &str, source: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}}}\nspec: {{capacity: {{storage: 1Gi}}, accessModes: [{mode}], storageClassName: {name}, {source}}}\n---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec: {{accessModes: [{mode}], storageClassName: {name}, resources: {{requests: {{storage: 1Gi}}}}}}\n"
    )
}

fn pod(name: &str, claim: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  volumes: [{{name: v, persistentVolumeClaim: {{claimName: {claim}}}}}]\n  containers:\n  - {{name: c, image: {}, command: [sleep, '3600'], volumeMounts: [{{name: v, mountPath: /v}}]}}\n",
        image::BUSYBOX
    )
}

fn scheduled(cluster: &Cluster, pod: &str) -> Result<()> {
    wait(&format!("{pod} to have a node"), 30, || {
        Ok(cluster.get(&["pod", pod])?["spec"]["nodeName"].is_string().then_some(()))
    })
}

fn waits(cluster: &Cluster, pod: &str, why: &str) -> Result<()> {
    wait(&format!("{pod} to wait: {why}"), 30, || {
        let conditions = cluster.get(&["pod", pod])?["status"]["conditions"].to_string();
        Ok(conditions.contains(why).then_some(()))
    })
}

#[test]
fn volumes_bear_so_many_users_and_nodes_so_many_volumes() -> Result<()> {
    let cluster = Cluster::up("e2e-sched")?;
    let path = cluster.data_dir().join("alone");
    let source = format!("hostPath: {{path: {path:?}, type: DirectoryOrCreate}}");
    cluster.apply(&(volume("alone", "ReadWriteOncePod", &source) + &pod("one", "alone")))?;
    scheduled(&cluster, "one")?;
    cluster.apply(&pod("two", "alone"))?;
    let why = "PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
    waits(&cluster, "two", why)?;
    cluster.kubectl(&["delete", "pod", "one", "--timeout=30s"])?;
    scheduled(&cluster, "two")?;
    // A driver that can have one volume on a node.
    let driver = r#"{"spec":{"drivers":[{"name":"x.example.com","nodeID":"n","allocatable":{"count":1}}]}}"#;
    cluster.kubectl(&["patch", "csinode", "e2e-sched", "--type=merge", "-p", driver])?;
    let csi = |handle: &str| volume(handle, "ReadWriteOnce", &format!("csi: {{driver: x.example.com, volumeHandle: {handle}}}"));
    cluster.apply(&(csi("first") + &pod("three", "first") + &csi("second")))?;
    scheduled(&cluster, "three")?;
    cluster.apply(&pod("four", "second"))?;
    waits(&cluster, "four", "1 node(s) exceed max volume count")?;
    // The volume that is there already takes no more room.
    cluster.apply(&pod("five", "first"))?;
    scheduled(&cluster, "five")?;
    Ok(())
}
