//! How much memory the process may still take, and how much it took at most.
//!
//! On Linux the answer is the smallest of the machine's and of every control group above the process (v1 or v2), since a
//! container is killed at its own limit, not at the machine's. Page cache that the kernel would give back (inactive files)
//! counts as free, as in the kernel's own `MemAvailable`.
//! Sources: proc(5); Linux, Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files"; cgroup-v1/memory.rst, 5.2.
//!
//! Elsewhere both answers are `None`: macOS and Windows need calls outside the standard library.

use std::path::{Path, PathBuf};

/// A cgroup v1 limit from here on means "none": the kernel prints the largest page-aligned i64.
const NO_LIMIT: u64 = 1 << 60;

/// Bytes that the process can take before it is refused or killed; `None` where the system does not say.
pub fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

/// The largest resident set of this process so far, bytes; `None` where the system does not say.
pub fn peak_rss() -> Option<u64> {
    peak_rss_under(Path::new("/"))
}

fn available_under(root: &Path) -> Option<u64> {
    let machine = field_kib(&root.join("proc/meminfo"), "MemAvailable:");
    [machine, group_v2(root), group_v1(root)].into_iter().flatten().min()
}

fn peak_rss_under(root: &Path) -> Option<u64> {
    field_kib(&root.join("proc/self/status"), "VmHWM:")
}

/// The least room in any group of the v2 hierarchy above the process.
fn group_v2(root: &Path) -> Option<u64> {
    let mount = root.join("sys/fs/cgroup");
    groups(&mount, &group_path(root, "")?)
        .filter_map(|group| {
            let limit = number(&group.join("memory.max"))?; // "max" is no number: no limit
            let used = number(&group.join("memory.current"))?;
            Some(room(limit, used, &group, "inactive_file"))
        })
        .min()
}

/// The same of the v1 memory hierarchy.
fn group_v1(root: &Path) -> Option<u64> {
    let mount = root.join("sys/fs/cgroup/memory");
    groups(&mount, &group_path(root, "memory")?)
        .filter_map(|group| {
            let limit = number(&group.join("memory.limit_in_bytes")).filter(|limit| *limit < NO_LIMIT)?;
            let used = number(&group.join("memory.usage_in_bytes"))?;
            Some(room(limit, used, &group, "total_inactive_file"))
        })
        .min()
}

/// limit - (used - what the kernel would give back).
fn room(limit: u64, used: u64, group: &Path, reclaimable: &str) -> u64 {
    let cache = field(&group.join("memory.stat"), reclaimable).unwrap_or(0);
    limit.saturating_sub(used.saturating_sub(cache))
}

/// The process's path in the hierarchy of a controller, from `/proc/self/cgroup`; the v2 line names no controller.
fn group_path(root: &Path, controller: &str) -> Option<String> {
    let text = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':'); // hierarchy:controllers:path
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let matches = if controller.is_empty() {
            id == "0" && controllers.is_empty()
        } else {
            controllers.split(',').any(|name| name == controller)
        };
        matches.then(|| path.trim_start_matches('/').to_owned())
    })
}

/// The group and all above it. Inside a container the path may be the host's, and only the mount itself exists.
fn groups(mount: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
    let mount = mount.to_owned();
    let leaf = mount.join(path);
    let above: Vec<PathBuf> =
        leaf.ancestors().take_while(|p| p.starts_with(&mount)).map(Path::to_owned).collect();
    above.into_iter()
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after a name at the start of a line.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

fn field_kib(path: &Path, name: &str) -> Option<u64> {
    field(path, name)?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal: 2000 kB\nMemFree: 10 kB\nMemAvailable: 1000 kB\n");

    #[test]
    fn without_groups_the_machine_decides() {
        assert_eq!(available_under(root(&[MEMINFO]).path()), Some(1000 * 1024));
    }

    #[test]
    fn nothing_is_known_on_another_system() {
        let empty = root(&[]);
        assert_eq!((available_under(empty.path()), peak_rss_under(empty.path())), (None, None));
    }

    #[test]
    fn the_tightest_group_above_the_process_decides() {
        let root = root(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/pod/run\n"),
            ("sys/fs/cgroup/pod/run/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/run/memory.current", "5000\n"),
            ("sys/fs/cgroup/pod/memory.max", "90000\n"),
            ("sys/fs/cgroup/pod/memory.current", "60000\n"),
            ("sys/fs/cgroup/pod/memory.stat", "anon 50000\ninactive_file 7000\n"),
        ]);
        assert_eq!(available_under(root.path()), Some(90000 - (60000 - 7000)));
    }

    #[test]
    fn the_first_version_of_groups_is_read() {
        let root = root(&[
            MEMINFO,
            ("proc/self/cgroup", "7:cpu,cpuacct:/x\n5:memory:/job\n"),
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "500000\n"),
            ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "450000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "9223372036854771000\n"),
        ]);
        assert_eq!(available_under(root.path()), Some(50000));
    }

    #[test]
    fn the_mount_counts_when_the_path_is_the_hosts() {
        let root = root(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/kubepods/elsewhere\n"),
            ("sys/fs/cgroup/memory.max", "4000\n"),
            ("sys/fs/cgroup/memory.current", "5000\n"),
        ]);
        assert_eq!(available_under(root.path()), Some(0)); // over the limit is no room, not a wrapped number
    }

    #[test]
    fn the_peak_is_the_high_water_mark() {
        let root = root(&[("proc/self/status", "VmPeak:\t 900 kB\nVmHWM:\t 300 kB\nVmRSS:\t 200 kB\n")]);
        assert_eq!(peak_rss_under(root.path()), Some(300 * 1024));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_holds_memory_and_can_have_more() {
        assert!(peak_rss().is_some_and(|bytes| bytes > 100_000));
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
