"""Networks whose programs are timed and compiled: a transformer block, and a dense network."""

import flax.linen as nn
import jax.numpy as jnp

import jdrop

RATE = 0.1
LAYERS = {"none": None, "flax.linen": nn.Dropout, "jdrop.linen": jdrop.linen.Dropout}


class Block(nn.Module):
    """A transformer block with dropout on the attention weights, the attention's output and the MLP's output."""

    layer: type | None
    heads: int = 4

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        y = nn.DenseGeneral((3, self.heads, width // self.heads))(nn.LayerNorm()(x))
        query, key, value = (y[:, :, i] for i in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * (width // self.heads) ** -0.5
        weights = self.drop(nn.softmax(scores))
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        x = x + self.drop(nn.DenseGeneral(width, axis=(-2, -1))(y))
        y = nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x))))
        return x + self.drop(y)

    def drop(self, x):
        return x if self.layer is None else self.layer(RATE, deterministic=False)(x)


class Net(nn.Module):
    """Two hidden layers with dropout."""

    width: int = 1024

    @nn.compact
    def __call__(self, x, train=False):
        for _ in range(2):
            x = jdrop.linen.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(self.width)(x)))
        return nn.Dense(10)(x)
