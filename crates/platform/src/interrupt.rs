//! Ctrl-C: the first asks the run to save and stop, the second stops it at once.

use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code after a second Ctrl-C: 128 + SIGINT, the shells' convention.
const KILLED: i32 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Takes over Ctrl-C, and a polite request to end (SIGTERM, SIGHUP; on Windows the closing of the console).
///
/// Returns the flag that long work polls. Calling it twice is harmless. If the system refuses a handler, Ctrl-C keeps
/// ending the process at once, and the flag stays unset.
pub fn install() -> &'static AtomicBool {
    // The second call of a process reports `MultipleHandlers`: the first handler is still there.
    let _ = ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            #[expect(clippy::exit, reason = "the second Ctrl-C means now; files are whole at any time")]
            std::process::exit(KILLED);
        }
    });
    &REQUESTED
}

/// Whether the user has asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
