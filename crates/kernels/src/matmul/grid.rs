//! How a chunk of C is shared out.

use super::drive::Threads;
use super::kernel::Kernel;

/// Bytes of A that a task goes through for each panel of B.
const BLOCK_BYTES: usize = 192 << 10;
/// Columns of a task that keeps partial sums.
const SUM_COLUMNS: usize = 1024;

/// How a chunk of C is cut into tasks: (start, length) along rows and columns.
pub(super) struct Grid {
    pub(super) rows: Vec<(usize, usize)>,
    pub(super) cols: Vec<(usize, usize)>,
}

impl Grid {
    pub(super) fn new<K: Kernel>(
        m: usize,
        n: usize,
        row_lanes: usize,
        passes: usize,
        threads: Threads,
    ) -> Self {
        let wanted = if threads == Threads::Pool { 4 * rayon::current_num_threads() } else { 1 };
        let tall =
            (BLOCK_BYTES / 4 / row_lanes.div_ceil(passes)).clamp(4 * K::MR, 16 * K::MR) / K::MR * K::MR;
        let rows = cut(m, K::MR, m.div_ceil(tall));
        let widest = if passes > 1 { n.div_ceil(SUM_COLUMNS) } else { 1 };
        let cols = cut(n, K::NR, widest.max(wanted.div_ceil(rows.len())));
        Self { rows, cols }
    }
}

/// Cuts `n` into at most `parts` pieces whose starts are multiples of `step`.
fn cut(n: usize, step: usize, parts: usize) -> Vec<(usize, usize)> {
    let each = n.div_ceil(parts.max(1)).next_multiple_of(step);
    (0..n).step_by(each).map(|from| (from, each.min(n - from))).collect()
}
