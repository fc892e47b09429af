//! Pulling from a hub on loopback: what is brought, and what must not happen on the way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod pull;
mod support;
