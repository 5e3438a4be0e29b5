//! Compiles the holder: a static program of its own, embedded in the agent and imported into the engine as an image.

use std::{env, error::Error, path::Path, process::Command};

const SOURCE: &str = "holder/holder.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={SOURCE}");
    let output = Path::new(&env::var("OUT_DIR")?).join("holder");
    let status = Command::new(env::var("RUSTC")?)
        .args(["--edition", "2024", "--crate-name", "holder", "--target", &env::var("TARGET")?])
        .args(["-O", "-C", "target-feature=+crt-static", "-C", "panic=abort", "-C", "strip=symbols", "-C", "lto=fat"])
        .arg("-o")
        .arg(&output)
        .arg(SOURCE)
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("{SOURCE} does not compile: {status}").into()) }
}
