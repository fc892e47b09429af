//! The one error that a command ends with.

use luthier_config::Place;
use serde_json::{Value, json};

/// Exit code: the run failed.
pub const FAILED: u8 = 1;
/// Exit code: the input was wrong.
pub const INPUT: u8 = 2;

/// What is printed when a command fails.
#[derive(Debug)]
pub struct CliError {
    /// The error's name for programs.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
    /// What to underline, if the mistake stands in a configuration.
    pub place: Option<Box<Place>>,
    /// The file at fault, where there is no place to underline.
    pub file: Option<String>,
    /// The line in that file, from 1.
    pub line: Option<usize>,
    /// [`FAILED`] or [`INPUT`].
    pub exit: u8,
}

impl CliError {
    /// An error about the input.
    pub fn input(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, place: None, file: None, line: None, exit: INPUT }
    }

    /// An error of the run.
    pub fn failed(code: &'static str, message: impl Into<String>) -> Self {
        Self { exit: FAILED, ..Self::input(code, message) }
    }

    /// The file system refused, which is the run's failure and not the input's.
    pub fn io(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        let mut failed = Self::failed("io", format!("cannot {action} {}: {error}", path.display()));
        failed.file = Some(path.display().to_string());
        failed.help("check the path, its rights and the disk's free space")
    }

    /// With the way out.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A panic: the panic's own message has gone to standard error.
    pub fn bug() -> Self {
        Self::failed("bug", "luthier has a bug: an inner assumption does not hold")
            .help("please report the command, the configuration and what was printed")
    }

    /// What clap refuses, in one line.
    pub fn usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let first =
            lines.next().unwrap_or("wrong arguments").trim_start_matches("error: ").trim_end_matches(':');
        // "the following arguments were not provided" is followed by their list.
        let message = match lines.next().map(str::trim) {
            Some(listed) if listed.starts_with('<') || listed.starts_with("--") => {
                format!("{first}: {listed}")
            }
            _ => first.to_owned(),
        };
        let tip = text.lines().map(str::trim).find_map(|line| line.strip_prefix("tip: "));
        Self::input("usage", message).help(tip.unwrap_or("see `luthier --help`"))
    }

    /// As programs read it.
    pub fn to_json(&self) -> Value {
        let place = self.place.as_deref();
        let file = place.map(|place| place.file.clone()).or_else(|| self.file.clone());
        let line = place.map(|place| place.line).or(self.line);
        json!({"error": {"code": self.code, "message": self.message, "help": self.help, "file": file, "line": line}})
    }
}

impl From<luthier_config::Error> for CliError {
    fn from(error: luthier_config::Error) -> Self {
        let file = match &error {
            luthier_config::Error::Unreadable { path, .. } | luthier_config::Error::NotText { path, .. } => {
                Some(path.display().to_string())
            }
            _ => None,
        };
        Self {
            help: error.help(),
            place: error.place().cloned().map(Box::new),
            file,
            ..Self::input(error.code(), error.to_string())
        }
    }
}

impl From<luthier_hub::Error> for CliError {
    fn from(error: luthier_hub::Error) -> Self {
        let exit = if error.is_input() { INPUT } else { FAILED };
        Self { help: error.help(), exit, ..Self::input(error.code(), error.to_string()) }
    }
}

/// Errors of crates that tell code and help; the input is at fault.
macro_rules! input_error {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self { help: error.help(), ..Self::input(error.code(), error.to_string()) }
            }
        }
    )*};
}

input_error!(
    luthier_decode::Error,
    luthier_eval::Error,
    luthier_models::Error,
    luthier_storage::Error,
    luthier_contract::Error,
    luthier_methods::ReadError
);

impl From<luthier_data::Error> for CliError {
    fn from(error: luthier_data::Error) -> Self {
        let details = error.details();
        let mut message = error.to_string();
        for detail in &details {
            message.push_str("\n  ");
            message.push_str(detail);
        }
        let (file, line) = match error.place() {
            Some((path, line)) => (Some(path.display().to_string()), line.map(|line| line as usize)),
            None => (None, None),
        };
        Self { help: error.help(), file, line, ..Self::input(error.code(), message) }
    }
}

impl From<luthier_train::Error> for CliError {
    fn from(error: luthier_train::Error) -> Self {
        use luthier_train::Error;
        match error {
            Error::Config(error) => error.into(),
            Error::Data(error) => error.into(),
            Error::Hub(error) => error.into(),
            error => {
                let exit = if error.is_input() { INPUT } else { FAILED };
                Self { help: error.help(), exit, ..Self::input(error.code(), error.to_string()) }
            }
        }
    }
}

impl From<luthier_train::MergeError> for CliError {
    fn from(error: luthier_train::MergeError) -> Self {
        match error {
            luthier_train::MergeError::Train(error) => error.into(),
            error => Self { help: error.help(), ..Self::input(error.code(), error.to_string()) },
        }
    }
}
