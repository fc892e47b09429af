"""Goldens of BERT: gelu and its tanh form, a head that is not the embedding, and a base saved without a head."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from transformers import BertConfig
import encoders, tiny


def bert(**more):
    return BertConfig(**dict(hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=6,
                             vocab_size=tiny.VOCAB, max_position_embeddings=32) | more)


VARIANTS = {
    "default": bert(),
    "tanh": bert(hidden_act="gelu_new", num_attention_heads=4, tie_word_embeddings=False),
    "relu": bert(hidden_act="relu", type_vocab_size=1, layer_norm_eps=1e-5),
}
GRADS = ("bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight",
         "bert.embeddings.token_type_embeddings.weight", "bert.embeddings.LayerNorm.bias",
         "bert.encoder.layer.0.attention.self.query.weight", "bert.encoder.layer.0.attention.self.key.bias",
         "bert.encoder.layer.0.attention.output.LayerNorm.weight", "bert.encoder.layer.0.intermediate.dense.bias",
         "bert.encoder.layer.1.output.dense.weight", "cls.predictions.transform.dense.weight",
         "cls.predictions.transform.LayerNorm.bias", "cls.predictions.bias",
         "cls.predictions.decoder.bias")
encoders.main(VARIANTS, __file__, GRADS)
