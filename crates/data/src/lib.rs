//! Rows, templates, packing, the data doctor.
