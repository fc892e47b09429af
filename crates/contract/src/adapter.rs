//! An adapter: one method's tensors for one base.
use crate::method::Method;
use crate::param::{ParamSpec, Role, Scope};
use crate::site::Site;
use luthier_tensor::{Account, DType, Key, Param, Stream, Tape, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A method and its tensors at every place that it adapts.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// The method.
    pub method: Arc<dyn Method>,
    places: BTreeMap<String, Place>,
}

#[derive(Clone, Debug)]
struct Place {
    site: Option<Site>,
    tensors: Vec<(ParamSpec, Arc<Param>)>,
}

/// The tensors of one place, on a tape.
#[derive(Clone, Debug, Default)]
pub struct Params(BTreeMap<&'static str, Var>);

impl Params {
    /// The tensor declared as `name`.
    pub fn get(&self, name: &str) -> &Var {
        self.0.get(name).expect("a method asks for tensors that it declared")
    }

    /// Whether `name` is here.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl Adapter {
    /// Declares and fills the method's tensors for `sites`, in `dtype` (f32; f64 on the reference path). `weight`
    /// gives a site's base weight to initialisations that read it.
    pub fn init(
        method: Arc<dyn Method>,
        sites: &[Site],
        seed: u64,
        dtype: DType,
        weight: &dyn Fn(&Site) -> Tensor,
    ) -> Self {
        let run = Key::new(seed, Stream::Init);
        let mut places = BTreeMap::new();
        for site in sites {
            let specs = method.declare(Scope::Site(site));
            if specs.is_empty() {
                continue;
            }
            let tensors = specs.into_iter().map(|spec| {
                let name = format!("{}.{}", site.path, spec.name);
                let key = match spec.role {
                    Role::Derived { seed } => Key::new(seed, Stream::Init).at(&name),
                    Role::Trainable | Role::Frozen => run.at(&name),
                };
                let base = matches!(spec.init, crate::Init::FromBase(_)).then(|| weight(site));
                let value = spec.init.fill(&spec.shape, key, base.as_ref(), dtype);
                (spec, Param::new(name, value))
            });
            places.insert(site.path.clone(), Place { tensors: tensors.collect(), site: Some(site.clone()) });
        }
        Self { method, places }
    }

    /// The tensors at the place named `path`, on `tape`; none if the method does not adapt it.
    pub fn params(&self, path: &str, tape: &Tape) -> Option<Params> {
        let place = self.places.get(path)?;
        let on_tape = |(spec, param): &(ParamSpec, Arc<Param>)| {
            let var = match spec.role {
                Role::Trainable => tape.leaf(param),
                Role::Frozen | Role::Derived { .. } => Var::constant(param.value()),
            };
            (spec.name, var)
        };
        Some(Params(place.tensors.iter().map(on_tape).collect()))
    }

    /// The adapted sites with their tensors, in the order of their paths.
    pub fn sites(&self) -> impl Iterator<Item = (&Site, &[(ParamSpec, Arc<Param>)])> {
        self.places.values().filter_map(|p| p.site.as_ref().map(|s| (s, p.tensors.as_slice())))
    }

    /// The adapted sites' tensor values at `path`, for merging.
    pub fn values(&self, path: &str) -> Option<Vec<(&'static str, Tensor)>> {
        Some(self.places.get(path)?.tensors.iter().map(|(s, p)| (s.name, p.value())).collect())
    }

    /// Tensors that train, in a fixed order.
    pub fn trainable(&self) -> Vec<Arc<Param>> {
        let all = self.places.values().flat_map(|p| &p.tensors);
        all.filter(|(spec, _)| spec.role == Role::Trainable).map(|(_, p)| p.clone()).collect()
    }

    /// Tensors that the adapter's file holds: (key in the file, tensor), in a fixed order.
    pub fn saved(&self) -> Vec<(String, Arc<Param>)> {
        let mut out = Vec::new();
        for (site, tensors) in self.sites() {
            for (spec, param) in tensors {
                if !matches!(spec.role, Role::Derived { .. }) {
                    out.push((self.method.tensor_key(site, spec.name), param.clone()));
                }
            }
        }
        out
    }

    /// Bytes of all its tensors.
    pub fn bytes(&self) -> usize {
        self.places.values().flat_map(|p| &p.tensors).map(|(_, p)| p.value().size()).sum()
    }

    /// An adapter with a copy of the tensors: what training changes in one is not changed in the other.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut copy = self.clone();
        for (_, param) in copy.places.values_mut().flat_map(|p| &mut p.tensors) {
            *param = Param::new(param.name(), param.value().copy(Account::Adapter));
        }
        copy
    }
}
