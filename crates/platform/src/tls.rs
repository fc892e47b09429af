//! Whose TLS a program uses.

/// Whether the operating system brings a TLS library that every program can use: Secure Transport on Apple's systems,
/// Schannel on Windows.
///
/// Elsewhere TLS comes with the program: OpenSSL's headers are not on every Linux, and a C compiler is, since Rust links with it.
pub const SYSTEM_TLS: bool = cfg!(any(windows, target_vendor = "apple"));
