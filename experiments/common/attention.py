"""Attention with dropout of its weights, jdrop's and Flax's, whose programs are timed and compiled."""

import flax.linen as nn
import jax
import jax.numpy as jnp

import jdrop
from experiments.common.transformer import RATE


def flax(key, q, k, v):
    return nn.dot_product_attention(q, k, v, dropout_rng=key, dropout_rate=RATE, broadcast_dropout=False)


def ours(key, q, k, v, rate=RATE):
    return jdrop.dot_product_attention(key, q, k, v, rate)


def gradients(function):
    """(q, k, v, key) -> a loss of attention and all its gradients."""

    def loss(q, k, v, key):
        return (function(key, q, k, v).astype(jnp.float32) ** 2).sum()

    return jax.value_and_grad(loss, (0, 1, 2))
