//! `luthier bench`: what products, operations, steps and decoding cost on this machine.

mod decode;
mod gemm;
mod op;
mod peak;
mod shape;
mod step;
mod stopwatch;

use crate::error::CliError;
use crate::output::Output;
use clap::{Args, Subcommand, ValueEnum};
use luthier_kernels::isa::{self, Tier};
use luthier_tensor::DType;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// `luthier bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to time.
    #[command(subcommand)]
    pub what: Bench,
}

/// What is timed.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Matrix products in the shapes of a step, by tier and number format.
    Gemm(GemmArgs),
    /// Every operation of a step by itself: time, FLOPs and bytes.
    Op(OpArgs),
    /// Whole training steps: forward, backward, clipping and AdamW.
    Step(StepArgs),
    /// Generation of one sequence, against the rate at which memory can be read.
    Decode(DecodeArgs),
}

/// Number format of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DTypeArg {
    Bf16,
    F32,
}

impl DTypeArg {
    /// The type that it names.
    pub fn dtype(self) -> DType {
        match self {
            Self::Bf16 => DType::Bf16,
            Self::F32 => DType::F32,
        }
    }
}

/// How frozen matrices are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StorageArg {
    Bf16,
    F32,
    AsIs,
}

impl StorageArg {
    /// The type; none is the file's own.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::Bf16 => Some(DType::Bf16),
            Self::F32 => Some(DType::F32),
            Self::AsIs => None,
        }
    }
}

/// The instruction set that is used.
#[derive(Clone, Copy, Debug, Args)]
pub struct TierArgs {
    /// Instruction set: `avx512_bf16`, `avx512`, `avx2`, `neon`, `portable` [default: the machine's best].
    #[arg(long, value_name = "TIER", value_parser = tier)]
    pub tier: Option<Tier>,
}

fn tier(name: &str) -> Result<Tier, String> {
    let known = || Tier::ALL.map(Tier::name).join(", ");
    Tier::from_name(name).ok_or_else(|| format!("expected one of {}", known()))
}

impl TierArgs {
    /// Forces the tier for the whole process.
    fn force(self) -> Result<(), CliError> {
        isa::force(self.tier).map_err(|error| {
            CliError::input("tier", error.to_string()).help("leave --tier out to use the machine's best")
        })
    }
}

/// The size of a step.
#[derive(Clone, Debug, Args)]
pub struct SizeArgs {
    /// Shape of the model: smollm2-135m, or tiny.
    #[arg(long, default_value = "smollm2-135m", value_name = "SHAPE")]
    pub shape: String,
    /// Rank of low-rank methods.
    #[arg(long, default_value_t = 8, value_name = "R")]
    pub rank: usize,
    /// Rows of a step.
    #[arg(long, default_value = "4", value_name = "ROWS")]
    pub batch: NonZeroUsize,
    /// Tokens of a row; of real rows, where a longer one is cut.
    #[arg(long, default_value = "256", value_name = "TOKENS")]
    pub seq: NonZeroUsize,
}

/// `luthier bench gemm`.
#[derive(Debug, Args)]
pub struct GemmArgs {
    #[command(flatten)]
    pub size: SizeArgs,
    /// Number format [default: both].
    #[arg(long, value_enum)]
    pub dtype: Option<DTypeArg>,
    #[command(flatten)]
    pub tier: TierArgs,
    /// Every tier that the machine has, instead of one.
    #[arg(long, conflicts_with = "tier")]
    pub all_tiers: bool,
}

/// `luthier bench op`.
#[derive(Debug, Args)]
pub struct OpArgs {
    #[command(flatten)]
    pub size: SizeArgs,
    /// Number format of activations.
    #[arg(long, value_enum, default_value_t = DTypeArg::Bf16)]
    pub dtype: DTypeArg,
    #[command(flatten)]
    pub tier: TierArgs,
}

/// `luthier bench step`.
#[derive(Debug, Args)]
pub struct StepArgs {
    #[command(flatten)]
    pub size: SizeArgs,
    /// The method, with its defaults but for the rank.
    #[arg(long, default_value = "lora", value_name = "ID")]
    pub method: String,
    /// Number format of activations.
    #[arg(long, value_enum, default_value_t = DTypeArg::Bf16)]
    pub dtype: DTypeArg,
    /// How frozen matrices are held [default: in the type of activations].
    #[arg(long, value_enum)]
    pub storage: Option<StorageArg>,
    /// Steps that count; one before them warms up.
    #[arg(long, default_value = "4", value_name = "N")]
    pub steps: NonZeroUsize,
    /// Keep only the inputs of blocks, and run them again in backward.
    #[arg(long)]
    pub recompute: bool,
    #[command(flatten)]
    pub tier: TierArgs,
    /// A model's folder, .gguf file or pulled id, instead of random weights.
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Rows to train on in their order, loss on the answers; needs a base with a tokenizer.
    #[arg(long, value_name = "FILE", requires = "base")]
    pub data: Option<PathBuf>,
    /// Start from base/, adapter/ and ids.json in a folder, as another program wrote them.
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["base", "data", "method"])]
    pub init: Option<PathBuf>,
}

/// `luthier bench decode`.
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// Shape of a model with random weights: smollm2-135m, or tiny.
    #[arg(long, default_value = "smollm2-135m", value_name = "SHAPE")]
    pub shape: String,
    /// A model's folder, .gguf file or pulled id, instead of random weights.
    #[arg(long, value_name = "MODEL")]
    pub base: Option<String>,
    /// Number format of activations.
    #[arg(long, value_enum, default_value_t = DTypeArg::Bf16)]
    pub dtype: DTypeArg,
    /// How matrices are held.
    #[arg(long, value_enum, default_value_t = StorageArg::AsIs)]
    pub storage: StorageArg,
    /// Tokens before the first that is timed.
    #[arg(long, default_value = "16", value_name = "N")]
    pub prompt: NonZeroUsize,
    /// Tokens that are timed.
    #[arg(long, default_value = "64", value_name = "N")]
    pub tokens: NonZeroUsize,
    #[command(flatten)]
    pub tier: TierArgs,
}

/// Runs the command.
pub fn run(args: &BenchArgs, output: &Output) -> Result<(), CliError> {
    // Kernels start from a thread of the pool, as in training: work goes to neighbours without a detour.
    rayon::scope(|_| match &args.what {
        Bench::Gemm(args) => gemm::run(args, output),
        Bench::Op(args) => op::run(args, output),
        Bench::Step(args) => step::run(args, output),
        Bench::Decode(args) => decode::run(args, output),
    })
}
