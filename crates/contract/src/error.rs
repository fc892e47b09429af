//! What can be wrong with a method's settings.

/// A method's settings do not fit the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A target matches no site.
    #[error("`{target}` in {method}.targets matches no site of this model; its sites are {sites}")]
    NoSuchTarget {
        /// The method's id.
        method: &'static str,
        /// As the user wrote it.
        target: String,
        /// Names that would match.
        sites: String,
    },
    /// A setting has a value that the method cannot use.
    #[error("{method}.{key} is {got}, expected {expected}")]
    Setting {
        /// The method's id.
        method: &'static str,
        /// The key in the method's table.
        key: String,
        /// What was given.
        got: String,
        /// What can be given.
        expected: String,
    },
}

impl Error {
    /// A stable name for machines.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSuchTarget { .. } => "method-target",
            Self::Setting { .. } => "method-setting",
        }
    }

    /// A way out.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoSuchTarget { .. } => Some(
                "use \"all-linear\", short names such as [\"q\", \"v\"], module names such as [\"q_proj\"], \
                 or patterns such as [\"layers.*.mlp.*\"]"
                    .into(),
            ),
            Self::Setting { .. } => None,
        }
    }
}
