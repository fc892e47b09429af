//! One folder an op.
