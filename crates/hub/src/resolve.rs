//! What `base = ".."` in run.toml means: a folder, a GGUF file, or a model that was pulled. The disk only, never the network.

use std::path::{Path, PathBuf};

use crate::cache::{self, Cache};
use crate::error::{Error, Result};
use crate::nearest::nearest;
use crate::repo::Repo;
use crate::settings::Settings;
use crate::wanted::is_gguf;

/// The model that `base` means, with paths relative to the working folder and the cache that the environment names.
pub fn resolve(base: &str) -> Result<PathBuf> {
    resolve_in(&Settings::from_env()?, Path::new(""), base)
}

/// The model that `base` means, with paths relative to `folder`, such as the one that run.toml stands in:
/// a folder with `config.json`, a `.gguf` file, or `ORG/NAME`, `ORG/NAME@REVISION` or `ORG/NAME/FILE.gguf` in the cache.
///
/// A path that is there wins over a model of the same name.
pub fn resolve_in(settings: &Settings, folder: &Path, base: &str) -> Result<PathBuf> {
    let path = folder.join(base);
    if path.is_dir() {
        return check_folder(path);
    }
    if path.is_file() {
        return check_file(path);
    }
    let Some((repo, gguf)) = parse(base) else {
        return Err(Error::NoBase { base: base.to_owned(), could_be_id: false, nearest: None });
    };
    pulled(&settings.cache, &repo, gguf).map(|(path, _)| path)
}

/// The id of the model that a path in the shared cache belongs to: what PEFT's files name as the base.
pub fn id_of(path: &Path) -> Option<String> {
    let mut parts =
        path.ancestors().skip_while(|part| part.file_name().is_none_or(|name| name != "snapshots"));
    let model = parts.next()?.parent()?;
    Repo::id_of_folder(model.file_name()?.to_str()?)
}

/// A model and a commit of it in the cache, whole; or the one GGUF file of it that is named or alone.
pub(crate) fn pulled(root: &Path, repo: &Repo, gguf: Option<&str>) -> Result<(PathBuf, String)> {
    let cache = Cache::new(root, repo);
    let not_pulled = || Error::NoBase {
        base: repo.to_argument(),
        could_be_id: true,
        nearest: nearest(
            repo.id(),
            cache::models(root).iter().map(String::as_str).filter(|id| *id != repo.id()),
        ),
    };
    let commit = cache.commit(repo.revision()).ok_or_else(not_pulled)?;
    let folder = cache.snapshot(&commit);
    if !folder.is_dir() {
        return Err(not_pulled());
    }
    if let Some(name) = gguf {
        let path = folder.join(name);
        let argument = format!("{} --file {name}", repo.to_argument());
        let missing =
            || Error::Incomplete { repo: repo.to_string(), argument, missing: vec![name.to_owned()] };
        return if path.is_file() && !crate::names::escapes(name) {
            Ok((path, commit))
        } else {
            Err(missing())
        };
    }
    let missing = cache.missing(&commit);
    if missing.is_empty() {
        return Ok((folder, commit));
    }
    let ggufs = cache::files_with(&folder, "gguf");
    match <[PathBuf; 1]>::try_from(ggufs) {
        Ok([only]) => Ok((only, commit)),
        Err(ggufs) if ggufs.is_empty() => {
            Err(Error::Incomplete { repo: repo.to_string(), argument: repo.to_argument(), missing })
        }
        Err(ggufs) => {
            let ids = ggufs.iter().filter_map(|path| Some(Path::new(repo.id()).join(path.file_name()?)));
            let expected = "one .gguf file, and there are several";
            Err(Error::NotAModel { expected, ggufs: ids.collect(), path: folder })
        }
    }
}

/// A model's name, perhaps with a GGUF file of it. `None` for what can only be a path.
fn parse(base: &str) -> Option<(Repo, Option<&str>)> {
    if let Ok(repo) = Repo::parse(base) {
        // `models/x.gguf` has the form of an id, but whoever writes it means a file.
        return (!is_gguf(base)).then_some((repo, None));
    }
    let (id, file) = base.rsplit_once('/')?;
    let repo = Repo::parse(id).ok()?;
    (is_gguf(file) && !crate::names::escapes(file)).then_some((repo, Some(file)))
}

fn check_folder(path: PathBuf) -> Result<PathBuf> {
    if path.join("config.json").is_file() {
        return Ok(path);
    }
    let ggufs = cache::files_with(&path, "gguf");
    Err(Error::NotAModel { expected: "a folder with config.json", ggufs, path })
}

fn check_file(path: PathBuf) -> Result<PathBuf> {
    if is_gguf(&path.to_string_lossy()) {
        return Ok(path);
    }
    Err(Error::NotAModel { expected: "a folder with config.json or a .gguf file", ggufs: Vec::new(), path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const COMMIT: &str = "0123456789012345678901234567890123456789";

    fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A cache with one model, as any tool of the field would have left it.
    fn cache_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Settings, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let model = cache.join("models--org--name");
        write(&model.join("refs/main"), COMMIT);
        for (name, content) in files {
            write(&model.join("snapshots").join(COMMIT).join(name), content);
        }
        let snapshot = model.join("snapshots").join(COMMIT);
        let settings = Settings::new("http://hub.example", cache).unwrap();
        (folder, settings, snapshot)
    }

    #[test]
    fn paths_win_over_names_and_are_relative_to_the_folder() {
        let (folder, settings, _) = cache_with(&[("config.json", "{}"), ("model.safetensors", "")]);
        write(&folder.path().join("org/name/config.json"), "{}");
        write(&folder.path().join("x.GGUF"), "");
        let found = |base: &str| resolve_in(&settings, folder.path(), base);
        assert_eq!(found("org/name").unwrap(), folder.path().join("org/name"));
        assert_eq!(found("x.GGUF").unwrap(), folder.path().join("x.GGUF"));
        let absolute = folder.path().join("x.GGUF");
        assert_eq!(found(absolute.to_str().unwrap()).unwrap(), absolute);
    }

    #[test]
    fn a_pulled_model_is_found_by_its_name_and_revision() {
        let (folder, settings, snapshot) = cache_with(&[("config.json", "{}"), ("model.safetensors", "")]);
        for base in ["org/name", "org/name@main", &format!("org/name@{COMMIT}")] {
            assert_eq!(resolve_in(&settings, folder.path(), base).unwrap(), snapshot, "{base}");
        }
        assert_eq!(id_of(&snapshot).as_deref(), Some("org/name"));
        assert_eq!(id_of(&snapshot.join("x.gguf")).as_deref(), Some("org/name"));
        assert_eq!(id_of(folder.path()), None);
    }

    #[test]
    fn a_model_that_was_not_pulled_names_the_command() {
        let (folder, settings, _) = cache_with(&[]);
        let error = resolve_in(&settings, folder.path(), "other/model").unwrap_err();
        assert_eq!(error.code(), "base-not-found");
        assert!(
            error.help().is_some_and(|help| help.contains("luthier pull other/model")),
            "{:?}",
            error.help()
        );
        let error = resolve_in(&settings, folder.path(), "org/nam").unwrap_err();
        assert!(
            error.help().is_some_and(|help| help.contains("did you mean `org/name`")),
            "{:?}",
            error.help()
        );
        // The branch was pulled, this tag was not.
        let error = resolve_in(&settings, folder.path(), "org/name@v2").unwrap_err();
        assert!(
            error.help().is_some_and(|help| help.contains("luthier pull org/name@v2")),
            "{:?}",
            error.help()
        );
    }

    #[test]
    fn what_can_only_be_a_path_names_no_command() {
        let (folder, settings, _) = cache_with(&[]);
        for base in
            ["../base", "/none/such", "./models", "models/x.gguf", "~/models/x", "a/b/c", "", "C:\\models"]
        {
            // The empty name is the folder itself, which is no model.
            let error = resolve_in(&settings, folder.path(), base).unwrap_err();
            assert!(
                matches!(error, Error::NoBase { could_be_id: false, .. } | Error::NotAModel { .. }),
                "{base:?}: {error}"
            );
            assert!(!error.help().unwrap_or_default().contains("luthier pull"), "{base:?}");
        }
    }

    #[test]
    fn a_folder_or_file_that_is_no_model_says_what_is_expected() {
        let (folder, settings, _) = cache_with(&[]);
        write(&folder.path().join("dir/q4.gguf"), "");
        write(&folder.path().join("weights.bin"), "");
        let error = resolve_in(&settings, folder.path(), "dir").unwrap_err();
        assert!(error.help().is_some_and(|help| help.contains("q4.gguf")));
        let error = resolve_in(&settings, folder.path(), "weights.bin").unwrap_err();
        assert_eq!(error.code(), "base-not-a-model");
    }

    #[test]
    fn a_model_with_missing_shards_is_incomplete() {
        let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "../x"}}"#;
        let (folder, settings, _) = cache_with(&[
            ("config.json", "{}"),
            ("model.safetensors.index.json", index),
            ("model-00001-of-00002.safetensors", ""),
        ]);
        let error = resolve_in(&settings, folder.path(), "org/name").unwrap_err();
        assert!(
            matches!(&error, Error::Incomplete { missing, .. } if *missing == ["../x", "model-00002-of-00002.safetensors"]),
            "{error}"
        );
        assert!(error.help().is_some_and(|help| help.contains("luthier pull org/name")));
    }

    #[test]
    fn a_gguf_is_found_alone_or_by_name() {
        let (folder, settings, snapshot) = cache_with(&[("q4.gguf", "")]);
        assert_eq!(resolve_in(&settings, folder.path(), "org/name").unwrap(), snapshot.join("q4.gguf"));
        let (folder, settings, snapshot) = cache_with(&[("q4.gguf", ""), ("q8.gguf", "")]);
        assert_eq!(
            resolve_in(&settings, folder.path(), "org/name/q8.gguf").unwrap(),
            snapshot.join("q8.gguf")
        );
        let error = resolve_in(&settings, folder.path(), "org/name").unwrap_err();
        assert!(error.help().is_some_and(|help| help.contains("org/name/q4.gguf")), "{:?}", error.help());
        let error = resolve_in(&settings, folder.path(), "org/name/q2.gguf").unwrap_err();
        assert!(
            error.help().is_some_and(|help| help.contains("luthier pull org/name --file q2.gguf")),
            "{:?}",
            error.help()
        );
    }
}
