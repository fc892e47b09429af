"""Goldens of DistilBERT: gelu and relu."""
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from transformers import DistilBertConfig
import encoders, tiny

SIZES = dict(dim=24, hidden_dim=20, n_layers=2, n_heads=6, vocab_size=tiny.VOCAB, max_position_embeddings=32)
VARIANTS = {"default": DistilBertConfig(**SIZES), "relu": DistilBertConfig(**SIZES | dict(activation="relu", n_heads=4))}
GRADS = ("distilbert.embeddings.word_embeddings.weight", "distilbert.embeddings.position_embeddings.weight",
         "distilbert.transformer.layer.0.attention.q_lin.weight", "distilbert.transformer.layer.0.attention.k_lin.bias",
         "distilbert.transformer.layer.0.sa_layer_norm.weight", "distilbert.transformer.layer.1.ffn.lin1.weight",
         "distilbert.transformer.layer.1.ffn.lin2.bias", "vocab_transform.weight", "vocab_layer_norm.bias",
         "vocab_projector.bias")
encoders.main(VARIANTS, __file__, GRADS)
