//! The command line. What stands in doc comments here is what `--help` prints.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Fine-tunes language models on the machine that you have.
#[derive(Debug, Parser)]
#[command(name = "luthier", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "New here? Run `luthier quickstart`: it needs no files and no network.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Print JSON: one object, or one event a line on long work.
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    /// Threads to compute with [default: all]. Changes no result.
    #[arg(long, global = true, value_name = "N", help_heading = "Everywhere")]
    pub threads: Option<NonZeroUsize>,
    /// Print results and errors only.
    #[arg(long, short, global = true, help_heading = "Everywhere")]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tune the model inside this program on the text inside it: a minute, no files needed.
    Quickstart(QuickstartArgs),
    /// Fine-tune a model as a run.toml says.
    Train(TrainArgs),
    /// Look at a run's data as the model will see it, and find what is wrong with it.
    Data(DataArgs),
    /// Measure a model, with or without adapters, on held-out data.
    Eval(EvalArgs),
    /// Continue a prompt.
    Generate(GenerateArgs),
    /// Talk to a model.
    Chat(ChatArgs),
    /// Write an adapter into its base, as a folder for transformers or a GGUF file.
    Merge(MergeArgs),
    /// Bring a model from the hub.
    Pull(PullArgs),
    /// Time products, operations, steps and generation on this machine.
    Bench(crate::commands::BenchArgs),
    /// List the methods that can fine-tune, or show one's card.
    Methods(MethodsArgs),
}

/// `luthier quickstart`.
#[derive(Debug, Args)]
pub struct QuickstartArgs {
    /// Folder for the adapter and the report.
    #[arg(long, default_value = "runs/quickstart", value_name = "FOLDER")]
    pub output: PathBuf,
}

/// A run.toml and what is changed in it.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The run's configuration.
    #[arg(value_name = "RUN.toml")]
    pub run: PathBuf,
    /// Replace a value of the configuration, as in --set train.steps=50.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `luthier train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Go on from the last checkpoint in the output folder.
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Remove what the output folder holds.
    #[arg(long)]
    pub overwrite: bool,
}

/// `luthier data`.
#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Samples to show, token by token.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub show: usize,
}

/// A model and its adapters.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// A model's folder, a .gguf file, an id that `luthier pull` brought, or an adapter's folder (then
    /// its base is found by its own record).
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// An adapter's folder.
    #[arg(long, value_name = "FOLDER")]
    pub adapter: Option<PathBuf>,
    /// Number format of matrix products; auto is bf16 where the processor has it, else f32.
    #[arg(long, value_enum, default_value_t = ComputeArg::Auto)]
    pub compute: ComputeArg,
}

/// Number format of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ComputeArg {
    // No docs on values: with them clap sets each option over several lines.
    Auto,
    Bf16,
    F32,
}

/// `luthier eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A run.toml, whose base and held-out data are taken, or a model as `generate` takes it.
    #[arg(value_name = "RUN.toml|MODEL")]
    pub subject: String,
    /// An adapter's folder; for a run.toml, the run's own unless --base-only.
    #[arg(long, value_name = "FOLDER")]
    pub adapter: Option<PathBuf>,
    /// Measure the base without the run's adapter.
    #[arg(long, conflicts_with = "adapter")]
    pub base_only: bool,
    /// Data to measure on [default: the run's held-out data].
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Replace a value of the run.toml, as in --set data.max_tokens=256.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Also generate answers, and compare the result that stands in them with the data's: gsm8k,
    /// a mark before a number (--answer "####"), or a regular expression with a group.
    #[arg(long, value_name = "PATTERN")]
    pub answer: Option<String>,
    /// Write every row and answer, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub predictions: Option<PathBuf>,
    /// Compare with the --predictions of another model on the same rows: paired bootstrap, and McNemar's test.
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// Longest generated answer.
    #[arg(long, default_value_t = 256, value_name = "TOKENS")]
    pub max_tokens: usize,
    /// Measure on the first rows only.
    #[arg(long, value_name = "ROWS")]
    pub limit: Option<NonZeroUsize>,
    /// Number format of matrix products; auto is bf16 where the processor has it, else f32.
    #[arg(long, value_enum, default_value_t = ComputeArg::Auto)]
    pub compute: ComputeArg,
}

/// How the next token is chosen.
#[derive(Clone, Debug, Args)]
pub struct SamplingArgs {
    /// Longest answer.
    #[arg(long, default_value_t = 256, value_name = "TOKENS")]
    pub max_tokens: usize,
    /// Divides the scores; 0 takes the likeliest token.
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub temperature: f32,
    /// Keep the K likeliest tokens.
    #[arg(long, value_name = "K")]
    pub top_k: Option<NonZeroUsize>,
    /// Keep the likeliest tokens that together reach P.
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,
    /// Keep tokens at least P times as likely as the likeliest.
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,
    /// Divides the scores of tokens that were already said [default: 1, none].
    #[arg(long, value_name = "X")]
    pub repetition_penalty: Option<f32>,
    /// End at this text; may be given more than once.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Of the random choices.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
}

/// `luthier generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The prompt [default: standard input].
    #[arg(long, short, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Continue the prompt as it is, without the model's chat template.
    #[arg(long)]
    pub raw: bool,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// `luthier chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// What the model is told before the first turn.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

/// `luthier merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The adapter's folder.
    #[arg(value_name = "ADAPTER")]
    pub adapter: PathBuf,
    /// A folder, or a file that ends in .gguf.
    #[arg(long, short, value_name = "PATH")]
    pub output: PathBuf,
    /// The base, where it is not at the place that the adapter records.
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Weights of a GGUF file.
    #[arg(long = "type", value_enum, default_value_t = GgufType::F16)]
    pub dtype: GgufType,
    /// Replace what stands at the output.
    #[arg(long)]
    pub overwrite: bool,
}

/// How a GGUF file holds its matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GgufType {
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

/// `luthier pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The model's id; ORG/NAME@REVISION for a branch, tag or commit other than main.
    #[arg(value_name = "ORG/NAME")]
    pub id: String,
    /// Bring this GGUF file of the model instead of its safetensors.
    #[arg(long, value_name = "FILE")]
    pub gguf: Option<String>,
}

/// `luthier methods`.
#[derive(Debug, Args)]
pub struct MethodsArgs {
    /// A method's id, as under [method] in a run.toml.
    #[arg(value_name = "ID")]
    pub id: Option<String>,
}
