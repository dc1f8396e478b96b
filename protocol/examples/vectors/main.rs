//! Writes `vectors/*.json` and the generated sections of SPEC.md: `cargo run -p holdfast-protocol --example vectors`.
//! The test `vectors` compares what is on disk with what this would write.

mod files;
mod layout;
mod samples;
mod story;
mod tables;
mod view;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, content) in files::vector_files() {
        std::fs::write(root.join("vectors").join(name), content)?;
    }
    let spec = root.join("SPEC.md");
    std::fs::write(&spec, files::spec(&std::fs::read_to_string(&spec)?))
}
