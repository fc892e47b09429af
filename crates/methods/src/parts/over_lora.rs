//! Methods that are LoRA with something more: their settings are LoRA's and their own in one table.
use crate::low_rank::lora::Lora;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The method's own settings and LoRA's, from one table. `own` names the former.
pub(crate) fn apart<Own: DeserializeOwned>(
    table: Value,
    own: &[&str],
) -> Result<(Own, Lora), serde_json::Error> {
    let table = serde_json::from_value::<Map<String, Value>>(table)?;
    let (mine, rest): (Map<_, _>, Map<_, _>) =
        table.into_iter().partition(|(key, _)| own.contains(&key.as_str()));
    Ok((serde_json::from_value(Value::Object(mine))?, serde_json::from_value(Value::Object(rest))?))
}

/// One table again.
pub(crate) fn together(own: &impl Serialize, lora: &Lora) -> Value {
    let table = |v: Result<Value, _>| match v {
        Ok(Value::Object(map)) => map,
        _ => unreachable!("settings are tables with text keys"),
    };
    let mut all = table(serde_json::to_value(own));
    all.extend(table(serde_json::to_value(lora)));
    Value::Object(all)
}

/// The named methods of [`Method`](luthier_contract::Method), handed to `self.lora`.
macro_rules! as_lora {
    ($($what:ident),* $(,)?) => { $(crate::parts::over_lora::as_lora!(@$what);)* };
    (@declare) => {
        fn declare(&self, scope: Scope<'_>) -> Vec<ParamSpec> {
            self.lora.declare(scope)
        }
    };
    (@count) => {
        fn count(&self, scope: Scope<'_>) -> usize {
            self.lora.count(scope)
        }
    };
    (@cost) => {
        fn cost(&self, site: &Site, n: usize) -> Cost {
            self.lora.cost(site, n)
        }
    };
    (@trains) => {
        fn trains(&self, param: &BaseParam) -> Training {
            self.lora.trains(param)
        }
    };
    (@linear) => {
        fn linear(&self, tape: &Tape, site: &Site, params: &Params, context: &Context) -> Delta {
            self.lora.linear(tape, site, params, context)
        }
    };
    (@merge) => {
        fn merge(
            &self,
            site: &Site,
            tensors: &[(&'static str, Tensor)],
            weight: &Tensor,
        ) -> Result<Tensor, Unmergeable> {
            self.lora.merge(site, tensors, weight)
        }
    };
    (@adapter_config) => {
        fn adapter_config(&self, base_name: &str, sites: &[Site]) -> Value {
            self.lora.adapter_config(base_name, sites)
        }
    };
    (@keys) => {
        fn tensor_key(&self, site: &Site, name: &str) -> String {
            self.lora.tensor_key(site, name)
        }

        fn base_key(&self, param: &BaseParam) -> String {
            self.lora.base_key(param)
        }
    };
}
pub(crate) use as_lora;
