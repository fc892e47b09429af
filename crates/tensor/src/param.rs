//! A trained tensor: a leaf of the tape.
use crate::tensor::Tensor;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// Names a leaf within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(u64);

impl ParamId {
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

/// A tensor that training changes: the model, the optimizer and the checkpoint share it.
#[derive(Debug)]
pub struct Param {
    id: ParamId,
    name: String,
    value: RwLock<Tensor>,
}

impl Param {
    /// A leaf with its first value. `name` is its path in files and messages.
    pub fn new(name: impl Into<String>, value: Tensor) -> Arc<Self> {
        Arc::new(Self { id: ParamId::fresh(), name: name.into(), value: RwLock::new(value) })
    }

    /// Its name on tapes.
    pub fn id(&self) -> ParamId {
        self.id
    }

    /// Its path in files and messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value, shared.
    pub fn value(&self) -> Tensor {
        self.value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value, whose shape must stay.
    pub fn set(&self, value: Tensor) {
        let mut slot = self.value.write().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(slot.shape(), value.shape(), "new value of {}", self.name);
        *slot = value;
    }

    /// Changes the value in place. A value that something else still holds (or that lies in a mapped file) is copied
    /// first, so that nobody's view changes under them.
    pub fn update<R>(&self, change: impl FnOnce(&mut Tensor) -> R) -> R {
        let mut slot = self.value.write().unwrap_or_else(PoisonError::into_inner);
        if !slot.is_unique() {
            let own = slot.copy(slot.account());
            *slot = own;
        }
        change(&mut slot)
    }
}
