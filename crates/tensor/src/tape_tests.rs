//! Tests of the tape with one toy operation, `y = a b` elementwise.
use super::*;

fn f64s(values: &[f64]) -> Tensor {
    Tensor::from_slice(&[values.len()], values, Account::Workspace)
}

fn mul(tape: &Tape, a: &Var, b: &Var) -> Var {
    let product = a.value().slice::<f64>().iter().zip(b.value().slice::<f64>()).map(|(a, b)| a * b);
    let out = f64s(&product.collect::<Vec<_>>());
    let (sa, sb) = (a.save(), b.save());
    tape.record_one(&[a, b], out, move |g| {
        let (a, b) = (sa.take(), sb.take());
        let dy = g.output(0).expect("one output");
        let times = |x: &Tensor| {
            f64s(&dy.slice::<f64>().iter().zip(x.slice::<f64>()).map(|(d, x)| d * x).collect::<Vec<_>>())
        };
        if g.needs(0) {
            g.push(0, times(&b));
        }
        if g.needs(1) {
            g.push(1, times(&a));
        }
    })
}

#[test]
fn a_tied_leaf_fires_once_with_the_whole_gradient() {
    struct Count(Vec<(ParamId, Vec<f64>)>);
    impl Sink for Count {
        fn leaf(&mut self, id: ParamId, gradient: Tensor) {
            self.0.push((id, gradient.to_f64_vec()));
        }
    }
    let w = Param::new("w", f64s(&[3.0]));
    let tape = Tape::new();
    let y = mul(&tape, &tape.leaf(&w), &tape.leaf(&w));
    let z = mul(&tape, &y, &tape.leaf(&w));
    let mut sink = Count(vec![]);
    tape.backward(z, 1.0, &mut sink);
    assert_eq!(sink.0, vec![(w.id(), vec![27.0])]);
}

#[test]
fn a_weight_may_be_updated_when_it_fires() {
    struct Update<'a>(&'a Arc<Param>);
    impl Sink for Update<'_> {
        fn leaf(&mut self, id: ParamId, gradient: Tensor) {
            if id != self.0.id() {
                return;
            }
            let before = self.0.value().slice::<f64>().as_ptr();
            self.0.update(|w| w.slice_mut::<f64>()[0] -= gradient.item());
            assert_eq!(
                self.0.value().slice::<f64>().as_ptr(),
                before,
                "in place: nobody else holds the weight"
            );
        }
    }
    let w = Param::new("w", f64s(&[3.0]));
    let tape = Tape::new();
    let (x, _) = tape.input(f64s(&[2.0]));
    let y = mul(&tape, &x, &tape.leaf(&w));
    tape.backward(y, 1.0, &mut Update(&w));
    assert_eq!(w.value().item(), 1.0);
}

#[test]
fn constants_record_nothing() {
    let tape = Tape::new();
    let y = mul(&tape, &Var::constant(f64s(&[1.0])), &Var::constant(f64s(&[2.0])));
    assert!(!y.needs_grad());
}

#[test]
fn gradients_add_onto_the_sink_s_partial() {
    let w = Param::new("w", f64s(&[3.0]));
    let mut sums = BTreeMap::new();
    for _ in 0..2 {
        let tape = Tape::new();
        let y = mul(&tape, &tape.leaf(&w), &Var::constant(f64s(&[5.0])));
        tape.backward(y, 1.0, &mut sums);
    }
    assert_eq!(sums[&w.id()].item(), 10.0);
}

#[test]
fn recompute_changes_no_gradient_and_frees_the_inside() {
    let w = Param::new("w", f64s(&[3.0]));
    let run = |recompute: bool| {
        let tape = Tape::new();
        let (x, id) = tape.input(f64s(&[2.0]));
        let inner = w.clone();
        let block: crate::checkpoint::Block = Rc::new(move |tape: &Tape, v: &[Var]| {
            let y = mul(tape, &v[0], &tape.leaf(&inner));
            vec![mul(tape, &y, &y), y]
        });
        let out = if recompute { tape.checkpoint(&[x], block) } else { block(&tape, &[x]) };
        let last = mul(&tape, &mul(&tape, &out[0], &out[1]), &tape.leaf(&w));
        let mut grads = BTreeMap::new();
        tape.backward(last, 1.0, &mut grads);
        (grads[&w.id()].item(), grads[&id].item())
    };
    // (x w)^3 w = x^3 w^4: by w 4 x^3 w^3 = 864, by x 3 x^2 w^4 = 972.
    assert_eq!(run(false), (864.0, 972.0));
    assert_eq!(run(true), run(false));
}

#[test]
fn a_recipe_is_made_once_for_all_uses_and_then_dropped() {
    let made = Rc::new(Cell::new(0));
    let tape = Tape::new();
    let (x, _) = tape.input(f64s(&[2.0]));
    let counter = made.clone();
    let x = x.with_recipe(move || {
        counter.set(counter.get() + 1);
        f64s(&[2.0])
    });
    let (a, b) = (x.save(), x.save());
    assert_eq!((a.take().item(), b.take().item(), made.get()), (2.0, 2.0, 1));
}
