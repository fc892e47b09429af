//! Optimizers as chains of transforms.
