//! The binary `luthier`.
fn main() {}
