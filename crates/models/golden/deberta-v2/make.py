"""Goldens of DeBERTa v2 and v3: shared and own projections of positions, buckets and none, one or both terms, both heads.

The longer sample has 21 tokens, so that its distances reach beyond the exact buckets and beyond a short span.
"""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from transformers import DebertaV2Config
import encoders, tiny

SIZES = dict(hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=6, vocab_size=tiny.VOCAB,
             max_position_embeddings=32, relative_attention=True, pos_att_type=["p2c", "c2p"], layer_norm_eps=1e-5)
VARIANTS = {
    "v3": DebertaV2Config(**SIZES, position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm",
                          position_biased_input=False, type_vocab_size=0),
    "own": DebertaV2Config(**SIZES, max_relative_positions=6, type_vocab_size=2),
    "keys": DebertaV2Config(**SIZES | dict(pos_att_type="c2p", num_attention_heads=4), position_biased_input=False,
                            legacy=False),
}
GRADS = ("deberta.embeddings.word_embeddings.weight", "deberta.embeddings.position_embeddings.weight",
         "deberta.encoder.rel_embeddings.weight", "deberta.encoder.LayerNorm.weight",
         "deberta.encoder.layer.0.attention.self.query_proj.weight", "deberta.encoder.layer.0.attention.self.key_proj.bias",
         "deberta.encoder.layer.0.attention.self.pos_key_proj.weight",
         "deberta.encoder.layer.0.attention.self.pos_query_proj.bias",
         "deberta.encoder.layer.0.attention.output.LayerNorm.weight", "deberta.encoder.layer.1.intermediate.dense.weight",
         "cls.predictions.bias", "lm_predictions.lm_head.dense.weight", "lm_predictions.lm_head.bias")
encoders.main(VARIANTS, __file__, GRADS)
