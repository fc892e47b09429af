//! One transformer; families are data.
