//! Who a buffer belongs to, and how much each account holds and held.
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What a buffer is for. Each account's peak is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Account {
    /// Weights of the base model, trained or not, mapped files included.
    Base,
    /// Tensors that a method adds.
    Adapter,
    /// Gradients of trained tensors.
    Gradient,
    /// Optimizer state.
    Optimizer,
    /// Values kept between forward and backward, and gradients of activations.
    Activation,
    /// Scratch memory inside an operation.
    Workspace,
}

const ACCOUNTS: usize = 6;
static CURRENT: [AtomicUsize; ACCOUNTS] = [const { AtomicUsize::new(0) }; ACCOUNTS];
static PEAK: [AtomicUsize; ACCOUNTS] = [const { AtomicUsize::new(0) }; ACCOUNTS];
static TOTAL: AtomicUsize = AtomicUsize::new(0);
static TOTAL_PEAK: AtomicUsize = AtomicUsize::new(0);

/// Bytes by account. `total` of a peak is the maximum over time of the sum, hence at most the sum of the peaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// [`Account::Base`]
    pub base: usize,
    /// [`Account::Adapter`]
    pub adapter: usize,
    /// [`Account::Gradient`]
    pub gradient: usize,
    /// [`Account::Optimizer`]
    pub optimizer: usize,
    /// [`Account::Activation`]
    pub activation: usize,
    /// [`Account::Workspace`]
    pub workspace: usize,
    /// All of them together.
    pub total: usize,
}

fn snapshot(of: &[AtomicUsize; ACCOUNTS], total: &AtomicUsize) -> Peak {
    let [base, adapter, gradient, optimizer, activation, workspace] =
        std::array::from_fn(|i| of[i].load(Relaxed));
    Peak { base, adapter, gradient, optimizer, activation, workspace, total: total.load(Relaxed) }
}

/// Bytes held now, by account.
pub fn usage() -> Peak {
    snapshot(&CURRENT, &TOTAL)
}

/// The most bytes held at once since the start or the last [`reset_peak`], by account.
pub fn peak() -> Peak {
    snapshot(&PEAK, &TOTAL_PEAK)
}

/// Starts measuring peaks afresh from what is held now.
pub fn reset_peak() {
    for (peak, current) in PEAK.iter().zip(&CURRENT) {
        peak.store(current.load(Relaxed), Relaxed);
    }
    TOTAL_PEAK.store(TOTAL.load(Relaxed), Relaxed);
}

pub(crate) fn credit(account: Account, bytes: usize) {
    let i = account as usize;
    PEAK[i].fetch_max(CURRENT[i].fetch_add(bytes, Relaxed) + bytes, Relaxed);
    TOTAL_PEAK.fetch_max(TOTAL.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

pub(crate) fn debit(account: Account, bytes: usize) {
    CURRENT[account as usize].fetch_sub(bytes, Relaxed);
    TOTAL.fetch_sub(bytes, Relaxed);
}
