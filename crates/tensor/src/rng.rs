//! Counter-based random numbers: a value is a function of where it is used, never of what was drawn before.
//!
//! Philox 4x32 with 10 rounds (Salmon 2011, "Parallel random numbers: as easy as
//! 1, 2, 3", section 3.3). The key comes from (seed, stream, step, pass, site),
//! the counter from (row, element), so that micro-batches draw what the whole
//! batch would, a replayed block draws what its first run drew, and nothing is
//! stored between forward and backward.

/// What the numbers are for: streams never share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// First values of tensors.
    Init = 1,
    /// Dropout masks.
    Dropout = 2,
    /// Stochastic rounding.
    Rounding = 3,
    /// Directions of estimators.
    Direction = 4,
    /// The order of rows.
    Shuffle = 5,
    /// Sampling of tokens.
    Sampling = 6,
    /// Anything in a test.
    Test = 7,
    /// Which tokens a masked language model must guess.
    Masking = 8,
}

/// Where numbers are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    words: [u32; 2],
}

fn mix(mut z: u64) -> u64 {
    // splitmix64's finaliser (Steele 2014): a bijection whose every output bit depends on every input bit.
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Key {
    /// The key of a run's `stream`.
    pub fn new(seed: u64, stream: Stream) -> Self {
        Self { words: [0; 2] }.with(seed).with(stream as u64)
    }

    /// The key of a step, a pass, a layer: any coordinate below this one.
    #[must_use]
    pub fn with(self, coordinate: u64) -> Self {
        let old = u64::from(self.words[0]) | u64::from(self.words[1]) << 32;
        let new = mix(
            old.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mix(coordinate.wrapping_add(0x632b_e59b_d9b4_e019))
        );
        Self { words: [new as u32, (new >> 32) as u32] }
    }

    /// The key of a named site. FNV-1a: the name's bytes, the same on every machine.
    #[must_use]
    pub fn at(self, site: &str) -> Self {
        let hash = site
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        self.with(hash)
    }

    /// The generator's key, for code that draws many blocks at once as [`block`](Self::block) draws one.
    pub fn words(self) -> [u32; 2] {
        self.words
    }

    /// Four words of 32 random bits at counter (row, block).
    pub fn block(self, row: u64, block: u64) -> [u32; 4] {
        let mut c = [block as u32, (block >> 32) as u32, row as u32, (row >> 32) as u32];
        let mut k = self.words;
        for _ in 0..10 {
            let p0 = u64::from(c[0]) * 0xD251_1F53;
            let p1 = u64::from(c[2]) * 0xCD9E_8D57;
            c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
            k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
        }
        c
    }

    /// 32 random bits of (row, element).
    pub fn bits(self, row: u64, element: u64) -> u32 {
        self.block(row, element / 4)[(element % 4) as usize]
    }

    /// Uniform in [0, 1) with 53 bits.
    pub fn uniform(self, row: u64, element: u64) -> f64 {
        let b = self.block(row, element);
        let bits = (u64::from(b[0]) << 21) ^ u64::from(b[1] >> 11);
        bits as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(self, row: u64, element: u64) -> f64 {
        let b = self.block(row, element);
        let unit =
            |hi: u32, lo: u32| ((u64::from(hi) << 21) ^ u64::from(lo >> 11)) as f64 / (1u64 << 53) as f64;
        let (u, v) = (1.0 - unit(b[0], b[1]), unit(b[2], b[3]));
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Random123's `kat_vectors` for philox4x32-10.
    #[test]
    fn philox_known_answers() {
        let zero = Key { words: [0, 0] };
        assert_eq!(zero.block(0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = Key { words: [u32::MAX; 2] };
        assert_eq!(ones.block(u64::MAX, u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn moments() {
        let key = Key::new(3, Stream::Test);
        let n = 20_000u64;
        let (mut mean, mut square, mut uniform) = (0.0, 0.0, 0.0);
        for i in 0..n {
            let x = key.normal(i / 100, i % 100);
            mean += x / n as f64;
            square += x * x / n as f64;
            uniform += key.uniform(i, 0) / n as f64;
        }
        // Five standard errors: 1/sqrt(n), sqrt(2/n), sqrt(1/12n).
        assert!(mean.abs() < 0.036 && (square - 1.0).abs() < 0.05 && (uniform - 0.5).abs() < 0.0103);
    }

    #[test]
    fn coordinates_are_ordered_and_independent() {
        let key = Key::new(0, Stream::Dropout);
        let all = [
            key,
            key.with(0),
            key.with(1),
            key.with(0).with(1),
            key.with(1).with(0),
            key.at("a"),
            key.at("b"),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }
}
