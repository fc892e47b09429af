//! Laws, tiny models, goldens (dev-dependency).
