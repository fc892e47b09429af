//! All of the base's own parameters train.
pub mod adalomo;
pub mod full_ft;
pub mod galore;
pub mod lomo;
pub mod mezo;
