"""Golden of GGUF: one tiny Llama whose matrices are held in every type that we read.

`mixed.gguf` is written by the package `gguf` (llama.cpp's own), with q and k in its row order (rotary halves interleaved).
`golden.safetensors` has what transformers' Llama computes from the decoded weights: tokens, offsets, targets, logits, loss
as in `models/golden/tiny.py`, and `weight.<gguf name>`: one tensor each of Q4_0, Q8_0, BF16 and Q4_1, decoded by the package, in the file's order.
"""
import pathlib, sys
here = pathlib.Path(__file__).parent
sys.path.insert(0, str(here.parent))
import gguf, torch, transformers
from gguf import GGMLQuantizationType as Q
import tiny

LAYERS, D, FF, HEADS, KV, HEAD = 2, 64, 96, 4, 2, 16
config = transformers.LlamaConfig(**tiny.SIZES | dict(hidden_size=D, intermediate_size=FF, num_attention_heads=HEADS,
                                                      num_key_value_heads=KV), tie_word_embeddings=False,
                                  rope_parameters={"rope_type": "default", "rope_theta": 50000.0})
torch.manual_seed(tiny.SEED)
model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="eager").eval()
tiny.fill(model)

# Every type at least once, on a matrix whose kind of error would show: embedding, permuted q and k, a plain linear, the head.
TYPES = {"token_embd": Q.Q8_0, "output": Q.F16, "blk.0.attn_q": Q.Q4_0, "blk.0.attn_k": Q.Q8_0, "blk.0.attn_v": Q.F32,
         "blk.0.attn_output": Q.BF16, "blk.0.ffn_gate": Q.Q4_1, "blk.0.ffn_up": Q.Q4_0, "blk.0.ffn_down": Q.Q8_0,
         "blk.1.attn_q": Q.F16, "blk.1.attn_k": Q.Q4_1, "blk.1.attn_v": Q.Q4_1, "blk.1.attn_output": Q.Q4_0,
         "blk.1.ffn_gate": Q.F16, "blk.1.ffn_up": Q.Q4_1, "blk.1.ffn_down": Q.BF16}
RECORDED = ("blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_output", "blk.1.attn_k")
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
         "model.layers.": "blk."}


def gguf_name(name):
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


def reorder(w, heads, back=False):
    """llama.cpp's order of the rows of q and k: pairs (i, i + d/2) of a head become neighbours; `back` undoes it."""
    shape = (heads, HEAD // 2, 2, -1) if back else (heads, 2, HEAD // 2, -1)
    return w.reshape(shape).swapaxes(1, 2).reshape(w.shape)


writer = gguf.GGUFWriter(here / "mixed.gguf", "llama")
writer.add_name("tiny")
writer.add_context_length(config.max_position_embeddings)
writer.add_embedding_length(D)
writer.add_block_count(LAYERS)
writer.add_feed_forward_length(FF)
writer.add_head_count(HEADS)
writer.add_head_count_kv(KV)
writer.add_rope_dimension_count(HEAD)
writer.add_rope_freq_base(50000.0)
writer.add_layer_norm_rms_eps(config.rms_norm_eps)
writer.add_vocab_size(tiny.VOCAB)
# A tokenizer of bytes and a few pairs: a reader asks for one, the golden's ids do not come from it.
letters = [chr(c) for c in range(ord("!"), ord("!") + tiny.VOCAB - 5)]
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("smollm")
writer.add_token_list(["<|endoftext|>", *letters, "AB", "CD", "ABCD", "12"])
writer.add_token_types([3] + [1] * (tiny.VOCAB - 1))
writer.add_token_merges(["A B", "C D", "AB CD", "1 2"])
writer.add_bos_token_id(0)
writer.add_eos_token_id(0)
writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
recorded = {}
with torch.no_grad():
    for name, p in model.named_parameters():
        short = gguf_name(name).removesuffix(".weight")
        heads = {"attn_q": HEADS, "attn_k": KV}.get(short.split(".")[-1])
        w = p.numpy().copy()
        w = reorder(w, heads) if heads else w
        kind = TYPES.get(short, Q.F32)  # norms are F32
        blocks = gguf.quants.quantize(w, kind)
        writer.add_tensor(f"{short}.weight", blocks, raw_dtype=kind)
        decoded = gguf.quants.dequantize(blocks, kind).reshape(w.shape)
        if short in RECORDED:
            recorded[f"weight.{short}.weight"] = torch.from_numpy(decoded.copy())
        p.copy_(torch.from_numpy(reorder(decoded, heads, back=True) if heads else decoded))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

logits, _, loss = tiny.run(model)
tiny.save(here / "golden.safetensors", tiny.inputs() | {"logits": logits, "loss": loss} | recorded, __file__)
print("loss", loss.item(), {k: tuple(v.shape) for k, v in recorded.items()},
      [(t.name, t.tensor_type.name) for t in gguf.GGUFReader(here / "mixed.gguf").tensors][:4])
