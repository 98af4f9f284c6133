//! Compiles `proto/*.proto` without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["cri", "csi", "deviceplugin", "dra", "dra_health", "pluginregistration", "podresources"];
    let paths: Vec<String> = files.iter().map(|name| format!("proto/{name}.proto")).collect();
    println!("cargo:rerun-if-changed=proto");
    for path in &paths {
        let descriptors = protox::compile([path], ["proto"])?;
        // Every call a service does not write out itself answers `Unimplemented`, as peers expect of optional ones.
        tonic_prost_build::configure().generate_default_stubs(true).build_transport(false).compile_fds(descriptors)?;
    }
    Ok(())
}
