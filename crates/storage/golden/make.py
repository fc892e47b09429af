"""Golden of ggml's blocks and of GGUF's metadata kinds, by the package `gguf` (llama.cpp's own).

`blocks.safetensors`: for Q8_0, Q4_0 and Q4_1, `<type>.blocks` (U8) with random levels and scales from f16's whole range
(subnormal, negative, zero, largest), and `<type>.values` (F32), what the package decodes; `quantize.values` (F32) and
`quantize.q8_0` (U8), what it encodes, with halves, zeros, negative zeros and tiny values among them.
`kinds.gguf`: one metadata entry of every kind, and one tensor.

    python make.py
"""
import hashlib, importlib.metadata, pathlib
import gguf, numpy as np
from gguf import GGMLQuantizationType as Q, GGUFValueType as K
from safetensors.numpy import save_file

here = pathlib.Path(__file__).parent
rng = np.random.default_rng(20)
out = {}
SCALES = np.array([0.01, -0.5, 0.0, -0.0, 6e-8, 65504.0, 1.0, 3.0517578e-05], dtype=np.float16)
BLOCKS = 24
for kind, halves, levels in [(Q.Q8_0, 1, 32), (Q.Q4_0, 1, 16), (Q.Q4_1, 2, 16)]:
    head = np.stack([np.roll(np.resize(SCALES, BLOCKS), 3 * i) for i in range(halves)], axis=1).view(np.uint8)
    body = rng.integers(0, 256, (BLOCKS, levels), dtype=np.uint8)
    blocks = np.concatenate([head, body], axis=1)
    name = kind.name.lower()
    out[f"{name}.blocks"] = blocks
    out[f"{name}.values"] = gguf.quants.dequantize(blocks, kind).reshape(BLOCKS, 32)

x = (rng.standard_normal((BLOCKS, 32)) * 10.0 ** rng.integers(-6, 3, (BLOCKS, 1))).astype(np.float32)
x[0] = 0
x[1, ::2] = -0.0
x[2] = np.arange(32) - 15.5  # largest 16.5: levels at and near halves
x[3] = np.linspace(-127, 127, 32, dtype=np.float32).round(1)
x[4] *= 1e-8
x[5, :] = 127.0
x[5, 1:9] = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -126.5]  # exact halves: away from zero
out["quantize.values"] = x
out["quantize.q8_0"] = gguf.quants.quantize(x, Q.Q8_0).reshape(BLOCKS, -1)

save_file(out, here / "blocks.safetensors", metadata={
    "gguf": importlib.metadata.version("gguf"), "numpy": np.__version__, "seed": "20",
    "make.py": hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()})

w = gguf.GGUFWriter(here / "kinds.gguf", "llama")
w.add_key_value("k.u8", 200, K.UINT8)
w.add_key_value("k.i8", -100, K.INT8)
w.add_key_value("k.u16", 60000, K.UINT16)
w.add_key_value("k.i16", -30000, K.INT16)
w.add_key_value("k.u32", 4000000000, K.UINT32)
w.add_key_value("k.i32", -2000000000, K.INT32)
w.add_key_value("k.f32", 0.5, K.FLOAT32)
w.add_key_value("k.bool", True, K.BOOL)
w.add_key_value("k.text", "a \u00e9 \u6f22", K.STRING)
w.add_key_value("k.u64", 2**63, K.UINT64)
w.add_key_value("k.i64", -2**62, K.INT64)
w.add_key_value("k.f64", 1e300, K.FLOAT64)
w.add_array("k.texts", ["a", "", "\u00e9"])
w.add_array("k.ints", [1, -2, 3])
w.add_array("k.floats", [0.25, -1.0])
w.add_array("k.bools", [True, False])
w.add_tensor("t", np.arange(6, dtype=np.float32).reshape(2, 3))
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
