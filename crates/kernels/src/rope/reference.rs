//! The obvious rotation.
use super::Turn;
use luthier_tensor::Float;

/// Turns `x [n, heads * head_dim]` in place. `table [positions, 2 half]`.
pub(super) fn turn<T: Float>(
    x: &mut [T],
    positions: &[u32],
    heads: usize,
    table: &[f64],
    half: usize,
    way: Turn,
) {
    let width = x.len() / positions.len().max(1);
    for (n, position) in positions.iter().enumerate() {
        for head in 0..heads {
            for i in 0..half {
                let at = |i| n * width + head * (width / heads) + i;
                let row = *position as usize * 2 * half;
                let (cos, sin) = (table[row + i], table[row + half + i]);
                let sin = if way == Turn::Back { -sin } else { sin };
                let (a, b) = (x[at(i)].to_f64(), x[at(half + i)].to_f64());
                x[at(i)] = T::from_f64(a * cos - b * sin);
                x[at(half + i)] = T::from_f64(b * cos + a * sin);
            }
        }
    }
}
