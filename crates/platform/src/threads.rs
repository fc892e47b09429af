//! How many threads to compute with.

/// Threads that can run at once: the processors, less what affinity masks and control groups (CPU quota) take away.
///
/// The standard library reads both, v1 and v2, on Linux. One where the system does not say.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_at_least_one() {
        assert!(super::count() >= 1);
    }
}
