"""Goldens of Roberta: positions counted from behind the padding's, with two paddings."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from transformers import RobertaConfig
import encoders, tiny

SIZES = dict(hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=6, vocab_size=tiny.VOCAB,
             max_position_embeddings=32, type_vocab_size=1, layer_norm_eps=1e-5)
VARIANTS = {
    "default": RobertaConfig(**SIZES),
    "padding": RobertaConfig(**SIZES | dict(pad_token_id=0, num_attention_heads=4)),
}
GRADS = ("roberta.embeddings.word_embeddings.weight", "roberta.embeddings.position_embeddings.weight",
         "roberta.embeddings.token_type_embeddings.weight", "roberta.encoder.layer.0.attention.self.query.weight",
         "roberta.encoder.layer.0.attention.self.value.bias", "roberta.encoder.layer.0.output.LayerNorm.weight",
         "roberta.encoder.layer.1.intermediate.dense.weight", "lm_head.dense.weight", "lm_head.layer_norm.bias",
         "lm_head.bias")
encoders.main(VARIANTS, __file__, GRADS)
