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
    /// Tensors of the whole model.
    shared: Vec<(ParamSpec, Arc<Param>)>,
    places: BTreeMap<String, Place>,
}

#[derive(Clone, Debug)]
struct Place {
    site: Site,
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
        let fill = |spec: ParamSpec, name: String, site: Option<&Site>| {
            let key = match spec.role {
                Role::Derived { seed } => Key::new(seed, Stream::Init).at(&name),
                Role::Trainable | Role::Frozen | Role::State => run.at(&name),
            };
            let base = site.filter(|_| matches!(spec.init, crate::Init::FromBase(_))).map(weight);
            let value = spec.init.fill(&spec.shape, key, base.as_ref(), dtype);
            (spec, Param::new(name, value))
        };
        let shared = method.declare(Scope::Model(sites)).into_iter();
        let shared = shared.map(|spec| (spec.name.to_string(), spec));
        let shared = shared.map(|(name, spec)| fill(spec, name, None)).collect();
        let mut places = BTreeMap::new();
        for site in sites {
            let specs = method.declare(Scope::Site(site));
            if specs.is_empty() {
                continue;
            }
            let tensors = specs.into_iter().map(|spec| {
                let name = format!("{}.{}", site.path, spec.name);
                fill(spec, name, Some(site))
            });
            places.insert(site.path.clone(), Place { tensors: tensors.collect(), site: site.clone() });
        }
        Self { method, shared, places }
    }

    /// The tensors at the place named `path` and those of the model, on `tape`; none if the method does not adapt it.
    pub fn params(&self, path: &str, tape: &Tape) -> Option<Params> {
        let place = self.places.get(path)?;
        let on_tape = |(spec, param): &(ParamSpec, Arc<Param>)| {
            let var = match spec.role {
                Role::Trainable => tape.leaf(param),
                Role::Frozen | Role::State | Role::Derived { .. } => Var::constant(param.value()),
            };
            (spec.name, var)
        };
        Some(Params(self.shared.iter().chain(&place.tensors).map(on_tape).collect()))
    }

    /// The adapted sites with their tensors, in the order of their paths.
    pub fn sites(&self) -> impl Iterator<Item = (&Site, &[(ParamSpec, Arc<Param>)])> {
        self.places.values().map(|p| (&p.site, p.tensors.as_slice()))
    }

    /// All tensors, each with its site; none for those of the model. In a fixed order.
    pub fn tensors(&self) -> impl Iterator<Item = (Option<&Site>, &ParamSpec, &Arc<Param>)> {
        let shared = self.shared.iter().map(|(spec, param)| (None, spec, param));
        let own = self.places.values();
        shared.chain(own.flat_map(|p| p.tensors.iter().map(|(spec, param)| (Some(&p.site), spec, param))))
    }

    /// The adapted sites' tensor values at `path` and the model's, for merging.
    pub fn values(&self, path: &str) -> Option<Vec<(&'static str, Tensor)>> {
        let own = &self.places.get(path)?.tensors;
        Some(self.shared.iter().chain(own).map(|(s, p)| (s.name, p.value())).collect())
    }

    /// Tensors that train, in a fixed order.
    pub fn trainable(&self) -> Vec<Arc<Param>> {
        let trains = self.tensors().filter(|(_, spec, _)| spec.role == Role::Trainable);
        trains.map(|(.., param)| param.clone()).collect()
    }

    /// Tensors that the adapter's file holds: (key in the file, tensor), in a fixed order.
    pub fn saved(&self) -> Vec<(String, Arc<Param>)> {
        let held = self.tensors().filter(|(_, spec, _)| matches!(spec.role, Role::Trainable | Role::Frozen));
        let key = |site: Option<&Site>, name| match site {
            Some(site) => self.method.tensor_key(site, name),
            None => self.method.shared_key(name),
        };
        held.map(|(site, spec, param)| (key(site, spec.name), param.clone())).collect()
    }

    /// Bytes of all its tensors.
    pub fn bytes(&self) -> usize {
        self.tensors().map(|(.., param)| param.value().size()).sum()
    }

    /// An adapter with a copy of the tensors: what training changes in one is not changed in the other.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut copy = self.clone();
        let own = copy.places.values_mut().flat_map(|p| &mut p.tensors);
        for (_, param) in copy.shared.iter_mut().chain(own) {
            *param = Param::new(param.name(), param.value().copy(Account::Adapter));
        }
        copy
    }
}
