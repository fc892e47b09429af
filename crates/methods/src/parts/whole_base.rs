//! What all methods that train the base's own weights have in common: they add nothing, and the result is a model.

/// The methods of [`Method`](luthier_contract::Method) that are the same for all of them; `$card` is the card.
macro_rules! trains_the_base {
    ($card:ident) => {
        fn card(&self) -> &'static Card {
            &$card
        }

        fn count(&self, _: Scope<'_>) -> usize {
            0 // it adds nothing: what trains is the base's own
        }

        fn merge(
            &self,
            _: &Site,
            _: &[(&'static str, Tensor)],
            weight: &Tensor,
        ) -> Result<Tensor, Unmergeable> {
            Ok(weight.clone())
        }

        fn adapter_config(&self, base_name: &str, _: &[Site]) -> Value {
            crate::own_file::config($card.id, base_name, self)
        }

        fn base_key(&self, param: &BaseParam) -> String {
            param.name.clone()
        }
    };
}
pub(crate) use trains_the_base;
