//! Rows against the definition in f64, on every tier.

use super::{BLOCK, BlockVector, Blocks, block_rows, reference};
use crate::isa::on_each_tier;
use half::f16;

const KINDS: [Blocks; 3] = [Blocks::Q8_0, Blocks::Q4_0, Blocks::Q4_1];

/// Random bytes with sensible scales and shifts.
fn rows(kind: Blocks, count: usize, blocks: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let mut bytes: Vec<u8> = (0..count * blocks * kind.bytes()).map(|_| (next() >> 11) as u8).collect();
    for block in bytes.chunks_exact_mut(kind.bytes()) {
        let scale = f32::from(block[3]) / 4096.0 - 0.03;
        block[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        if kind == Blocks::Q4_1 {
            block[2..4].copy_from_slice(&f16::from_f32(0.1 - scale).to_le_bytes());
        }
    }
    bytes
}

#[test]
fn rows_equal_their_decoded_values_times_the_vector() {
    for kind in KINDS {
        for (count, blocks) in [(0, 2), (1, 1), (3, 2), (4, 18), (7, 18), (9, 48)] {
            let bytes = rows(kind, count, blocks);
            let x: Vec<f32> = (0..blocks * BLOCK).map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0).collect();
            let mut first: Option<Vec<f32>> = None;
            on_each_tier(|tier| {
                let mut y = vec![f32::NAN; count];
                block_rows(kind, &bytes, &BlockVector::new(&x), &mut y);
                for (i, y) in y.iter().enumerate() {
                    let row = &bytes[i * blocks * kind.bytes()..][..blocks * kind.bytes()];
                    let values = reference::decode(kind, row);
                    let exact = values.iter().zip(&x).map(|(w, x)| w * f64::from(*x)).sum::<f64>();
                    let scale = values.iter().zip(&x).map(|(w, x)| (w * f64::from(*x)).abs()).sum::<f64>();
                    // Each lane is a chain of 2 `blocks` roundings, and a level times the scale may cancel the shift.
                    let bound = 4.0 * (blocks as f64 + 8.0) * 2f64.powi(-24) * scale.max(1.0);
                    assert!(
                        (f64::from(*y) - exact).abs() <= bound,
                        "{kind:?} on {tier}: row {i}: {y}, {exact}"
                    );
                }
                assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{kind:?} on {tier}");
            });
        }
    }
}
