//! What a reader, the catalogue and the docs need to know of a method.

/// A method's card. Every field is required: a method without its paper does not compile.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// Key in the configuration, `[method.lora]`; with `_` for `-`, also the file's name.
    pub id: &'static str,
    /// As the paper prints it.
    pub name: &'static str,
    /// In Chinese, as the survey's readers know it.
    pub name_zh: &'static str,
    /// The survey's class.
    pub class: Class,
    /// The group within the class: `low-rank`, `adapter`, `prompt`, ..
    pub family: &'static str,
    /// What is trained, and why: one line.
    pub principle: &'static str,
    /// The same in Chinese.
    pub principle_zh: &'static str,
    /// Where in the block it acts.
    pub position: &'static str,
    /// The same in Chinese.
    pub position_zh: &'static str,
    /// Strengths, limits, when to use it.
    pub characteristics: &'static str,
    /// The same in Chinese.
    pub characteristics_zh: &'static str,
    /// The primary source.
    pub paper: Paper,
    /// Numbers in the survey's list of references.
    pub references: &'static [u16],
    /// The update as the paper writes it.
    pub equation: &'static str,
    /// Trainable parameters of one `d_out x d_in` site (or of the model), in the card's symbols.
    pub parameters: &'static str,
    /// The hooks that the method overrides.
    pub hooks: &'static [Hook],
    /// Whether the result can be written into the base weights exactly.
    pub mergeable: bool,
}

/// A citation that a reader can follow.
#[derive(Clone, Copy, Debug)]
pub struct Paper {
    /// First author and year, `Hu 2021`.
    pub cite: &'static str,
    /// arXiv identifier, or a DOI where there is none.
    pub arxiv: &'static str,
}

/// The four classes of the survey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// All base parameters train.
    Full,
    /// Some base parameters train.
    Partial,
    /// Added parameters train.
    Additional,
    /// Nothing trains.
    ParameterFree,
}

impl Class {
    /// As written in output: `full`, `partial`, `additional`, `parameter-free`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Additional => "additional",
            Self::ParameterFree => "parameter-free",
        }
    }
}

/// Where a method steps in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Adds to a linear layer's output.
    Linear,
    /// Chooses which base parameters train.
    Base,
    /// Changes what becomes of a gradient, or when.
    Update,
    /// Finds the direction of a step by itself.
    Estimator,
    /// Adds a term to the loss.
    Penalty,
    /// Acts after each step.
    Schedule,
}

impl Hook {
    /// As written in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Base => "base",
            Self::Update => "update",
            Self::Estimator => "estimator",
            Self::Penalty => "penalty",
            Self::Schedule => "schedule",
        }
    }
}
