//! Keys and values of the tokens that a decoder has seen.
use crate::spec::ModelSpec;
use luthier_tensor::{Account, DType, Tensor};

/// The cache of one sequence. Rolling back is setting the length.
#[derive(Clone, Debug)]
pub struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    len: usize,
    width: usize,
    dtype: DType,
}

impl Cache {
    /// An empty cache.
    pub fn new(spec: &ModelSpec, dtype: DType) -> Self {
        let width = spec.kv_heads * spec.head_dim;
        let empty = || Tensor::scratch(&[0, width], dtype, Account::Activation);
        Self { layers: (0..spec.layers).map(|_| (empty(), empty())).collect(), len: 0, width, dtype }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all tokens from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|(k, v)| k.size() + v.size()).sum()
    }

    /// Writes keys and values `[n, kv_heads head_dim]` of block `i` after the present tokens, and shows all rows,
    /// the new ones included. The length grows by [`advance`](Self::advance), once all blocks have written.
    pub(crate) fn append(&mut self, i: usize, k: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
        let end = self.len + k.dim(0);
        let (width, dtype, len) = (self.width, self.dtype, self.len);
        let put = |held: &mut Tensor, new: &Tensor| {
            if held.dim(0) < end {
                // Doubling keeps the copies of a long generation linear in its length.
                let mut grown =
                    Tensor::zeros(&[end.next_power_of_two().max(64), width], dtype, Account::Activation);
                let keep = len * width * dtype.size();
                grown.bytes_mut()[..keep].copy_from_slice(&held.bytes()[..keep]);
                *held = grown;
            }
            let row = width * dtype.size();
            held.bytes_mut()[len * row..end * row].copy_from_slice(new.bytes());
            held.narrow(0..end)
        };
        let (held_k, held_v) = &mut self.layers[i];
        (put(held_k, k), put(held_v, v))
    }

    pub(crate) fn advance(&mut self, n: usize) {
        self.len += n;
    }
}
