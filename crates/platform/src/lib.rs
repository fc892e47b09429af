//! The one module where operating systems differ.
