//! Few rows times columns that lie along k: a decoder's products, bound by reading B, go past the blocked driver.

use super::drive::{self, Right, Term, Threads, each};
use super::kernel::{Kernel, Target};
use super::scratch::{self, Use};

/// Elements of B from which a product is worth a second thread: ten microseconds of reading. A decoder's products follow one
/// another so closely that the other threads have not gone to sleep.
const WORTH_SHARING: usize = 1 << 16;
/// Tasks a thread: the last one to finish keeps the others waiting for little.
const TASKS: usize = 2;

/// [`drive::product`], by the kernel for few rows where it applies: the same bits.
///
/// # Safety
/// As [`drive::product`].
pub(super) unsafe fn product<K: Kernel>(
    m: usize,
    n: usize,
    terms: &[Term],
    target: Target,
    threads: Threads,
) {
    let along = |t: &Term| matches!(&t.b, Right::Plain(b) if b.along_k == 1) && t.k > 0;
    if m == 0 || m > K::NARROW || n < K::VECTOR || terms.is_empty() || !terms.iter().all(along) {
        // SAFETY: passed on.
        return unsafe { drive::product::<K>(m, n, terms, target, threads) };
    }
    let lanes: usize = terms.iter().map(|t| t.k.div_ceil(K::UNIT)).sum();
    let k: usize = terms.iter().map(|t| t.k).sum();
    let alone = threads == Threads::One || rayon::current_num_threads() == 1 || n * k < WORTH_SHARING;
    let (threads, parts) =
        if alone { (Threads::One, 1) } else { (Threads::Pool, TASKS * rayon::current_num_threads()) };
    let width = n.div_ceil(parts).next_multiple_of(K::VECTOR);
    scratch::with(Use::Shared, m * lanes, |x| {
        let mut at = 0;
        for t in terms {
            for i in 0..m {
                // SAFETY: each row of each term has its own lanes.
                unsafe { K::pack(&t.a, i, 1, 0, t.k, x.add(i * lanes + at), 1) };
            }
            at += t.k.div_ceil(K::UNIT);
        }
        let x = drive::Shared(x);
        each(threads, n.div_ceil(width), |task| {
            for j in (task * width..n.min((task + 1) * width)).step_by(K::VECTOR) {
                // SAFETY: tasks write disjoint columns; the operands cover them.
                unsafe { columns::<K>(terms, j, (n - j).min(K::VECTOR), (x.get(), lanes, m), &target) };
            }
        });
    });
}

/// One vector of columns.
unsafe fn columns<K: Kernel>(
    terms: &[Term],
    j: usize,
    count: usize,
    (x, lanes, m): (*const u32, usize, usize),
    target: &Target,
) {
    let mut tile = [0f32; MOST];
    let mut at = 0;
    for (s, t) in terms.iter().enumerate() {
        let Right::Plain(b) = &t.b else { unreachable!("only plain operands come here") };
        // SAFETY: passed on; the tile holds NARROW rows.
        unsafe { K::narrow(b, (j, count), t.k, (x.add(at), lanes, m), tile.as_mut_ptr(), s == 0) };
        at += t.k.div_ceil(K::UNIT);
    }
    // SAFETY: as above.
    unsafe { K::write(target, 0, j, m, count, tile.as_ptr()) };
}

/// Elements of the largest tile: four rows of two AVX-512 vectors.
const MOST: usize = 4 * 32;
