//! The files that a configuration names: found relative to its own folder, or refused at the key's place.

use crate::document::Document;
use crate::error::Error;
use crate::nearest::nearest;
use crate::run::{Base, Data, Eval, Template};
use crate::settings::{DataSettings, EvalSettings, Files};
use std::path::{Component, Path, PathBuf};

/// Resolves paths of a document.
pub(crate) struct Finder<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) document: &'a Document,
}

impl Finder<'_> {
    /// A path from the folder on, without `.` and `..` where that names the same place.
    pub(crate) fn join(&self, written: &str) -> PathBuf {
        let plain = self.folder.join(written);
        let mut short = PathBuf::new();
        for part in plain.components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => {
                    short.pop();
                }
                part => short.push(part),
            }
        }
        // Behind a symbolic link `..` is another folder.
        let same = |a: &Path, b: &Path| a.canonicalize().ok() == b.canonicalize().ok();
        if same(&plain, &short) { short } else { plain }
    }

    /// A path that exists wins over a hub id of the same form.
    pub(crate) fn base(&self, written: &str) -> Result<Base, Error> {
        let path = self.join(written);
        if path.exists() {
            return Ok(Base::Path(path));
        }
        if is_hub_id(written) {
            return Ok(Base::Hub(written.to_owned()));
        }
        Err(self.no_file("base", path))
    }

    pub(crate) fn data(&self, data: DataSettings) -> Result<Data, Error> {
        Ok(Data {
            train: self.files("data.train", &data.train)?,
            eval: match data.eval {
                Some(EvalSettings::Files(files)) => Some(Eval::Files(self.files("data.eval", &files)?)),
                Some(EvalSettings::Share(share)) => Some(Eval::Share(share.get())),
                None => None,
            },
            format: data.format,
            fields: data.fields,
            encoding: data.encoding,
            loss: data.loss,
            template: match data.template.as_str() {
                "auto" => Template::Auto,
                "chatml" => Template::Chatml,
                "plain" => Template::Plain,
                "none" => Template::None,
                file => {
                    let path = self.join(file);
                    if !path.is_file() {
                        return Err(self.no_file("data.template", path));
                    }
                    Template::File(path)
                }
            },
            labels: data.labels,
            multi_label: data.multi_label,
            max_tokens: data.max_tokens.get(),
        })
    }

    fn files(&self, key: &str, files: &Files) -> Result<Vec<PathBuf>, Error> {
        let find = |file: &String| {
            let path = self.join(file);
            if path.is_file() { Ok(path) } else { Err(self.no_file(key, path)) }
        };
        files.0.iter().map(find).collect()
    }

    fn no_file(&self, key: &str, path: PathBuf) -> Error {
        Error::NoFile {
            key: key.to_owned(),
            near: near_file(&path),
            path,
            place: Box::new(self.document.place_of(key)),
        }
    }
}

/// A name in the same folder that is like the one that is not there.
fn near_file(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let mut names: Vec<String> = std::fs::read_dir(path.parent()?)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort(); // the order of a folder is the file system's
    nearest(&name, names.iter().map(String::as_str)).map(str::to_owned)
}

/// `ORG/NAME`, `ORG/NAME@REVISION` or `ORG/NAME/FILE.gguf`, as `luthier pull` takes them.
fn is_hub_id(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let is_file =
        |part: &str| Path::new(part).extension().is_some_and(|suffix| suffix.eq_ignore_ascii_case("gguf"));
    let (model, revision) = text.split_once('@').unwrap_or((text, "main"));
    match model.split('/').collect::<Vec<_>>().as_slice() {
        [org, name] => part(org) && part(name) && !is_file(name) && !revision.is_empty(),
        [org, name, file] => part(org) && part(name) && part(file) && is_file(file) && !revision.is_empty(),
        _ => false,
    }
}
