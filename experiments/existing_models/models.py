"""The six models: each function returns trainable parameters and a loss of them and of a key, for a rate of dropout."""

import flax.linen as nn
import jax
from flax import nnx


class Block(nn.Module):
    """A transformer block as in Flax's examples."""

    rate: float
    causal: bool = False

    @nn.compact
    def __call__(self, x, _=None):
        mask = nn.make_causal_mask(x[..., 0]) if self.causal else None
        attention = nn.MultiHeadDotProductAttention(4, dropout_rate=self.rate, broadcast_dropout=False)
        y = attention(nn.LayerNorm()(x), mask=mask, deterministic=False)
        x = x + nn.Dropout(self.rate, deterministic=False)(y)
        y = nn.gelu(nn.Dense(4 * x.shape[-1])(nn.LayerNorm()(x)))
        y = nn.Dense(x.shape[-1])(nn.Dropout(self.rate, deterministic=False)(y))
        return x + nn.Dropout(self.rate, deterministic=False)(y), None


class ViT(nn.Module):
    rate: float
    width: int

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(self.width, (4, 4), strides=(4, 4))(images)
        x = nn.Dropout(self.rate, deterministic=False)(x.reshape(len(x), -1, self.width))
        blocks = nn.scan(
            nn.remat(Block, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=4,
        )
        return nn.Dense(10)(blocks(self.rate)(x, None)[0].mean(1))


class LanguageModel(nn.Module):
    rate: float
    width: int

    @nn.compact
    def __call__(self, tokens):
        x = nn.Dropout(self.rate, deterministic=False)(nn.Embed(2000, self.width)(tokens))
        for _ in range(2):
            x, _ = Block(self.rate, causal=True)(x)
        return nn.Dense(2000)(nn.LayerNorm()(x))


def _of_linen(model, *inputs):
    params = model.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, *inputs)
    return params, lambda params, key: (model.apply(params, *inputs, rngs={"dropout": key}) ** 2).mean()


def vit(rate, small):
    side, width = (8, 16) if small else (32, 128)
    return _of_linen(ViT(rate, width), jax.random.normal(jax.random.key(2), (2 if small else 16, side, side, 3)))


def lm(rate, small):
    batch, length, width = (2, 8, 16) if small else (4, 256, 256)
    return _of_linen(LanguageModel(rate, width), jax.random.randint(jax.random.key(2), (batch, length), 0, 2000))


def bert(rate, small):
    from transformers import BertConfig, FlaxBertForSequenceClassification

    config = BertConfig(
        vocab_size=1000,
        hidden_size=16 if small else 256,
        num_hidden_layers=1 if small else 3,
        num_attention_heads=4,
        intermediate_size=32 if small else 1024,
        hidden_dropout_prob=rate,
        attention_probs_dropout_prob=rate,
    )
    batch, length = (2, 8) if small else (8, 128)
    model = FlaxBertForSequenceClassification(config, input_shape=(1, length), seed=0)
    tokens = jax.random.randint(jax.random.key(2), (batch, length), 0, 1000)

    def loss(params, key):
        return (model(tokens, params=params, train=True, dropout_rng=key).logits ** 2).mean()

    return model.params, loss


class Dense(nnx.Module):
    def __init__(self, width, rngs):
        self.layers = nnx.List(nnx.Linear(width, width, rngs=rngs) for _ in range(4))

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.gelu(layer(x))
        return x


def lora(rate, small):
    import qwix

    x = jax.random.normal(jax.random.key(2), (8, 16) if small else (1024, 512))
    adapters = qwix.LoraProvider(module_path=".*", rank=8, alpha=16.0, dropout=rate)
    model = qwix.apply_lora_to_model(Dense(x.shape[1], nnx.Rngs(0)), adapters, x, rngs=nnx.Rngs(1))
    graph, params, others = nnx.split(model, nnx.LoRAParam, ...)

    def loss(params, key):
        merged = nnx.merge(graph, params, others)
        merged.set_attributes(qwix_rngs=nnx.Rngs(key), raise_if_not_found=False)
        return (merged(x) ** 2).mean()

    return params, loss


def equinox(rate, small):
    import equinox as eqx

    width, batch = (16, 8) if small else (512, 1024)
    layers = [eqx.nn.Linear(width, width, key=key) for key in jax.random.split(jax.random.key(0), 4)]
    model = [layers, eqx.nn.Dropout(rate, inference=rate == 0)]
    params, others = eqx.partition(model, eqx.is_inexact_array)
    x = jax.random.normal(jax.random.key(2), (batch, width))

    def loss(params, key):
        layers, dropout = eqx.combine(params, others)

        def one(x, key):
            for i, layer in enumerate(layers):
                x = dropout(jax.nn.relu(layer(x)), key=jax.random.fold_in(key, i))
            return x

        return (jax.vmap(one)(x, jax.random.split(key, batch)) ** 2).mean()

    return params, loss


def haiku(rate, small):
    import haiku as hk

    x = jax.random.normal(jax.random.key(2), (8, 16) if small else (1024, 512))

    def network(x):
        for _ in range(4):
            x = hk.dropout(hk.next_rng_key(), rate, jax.nn.relu(hk.Linear(x.shape[1])(x)))
        return x

    model = hk.transform(network)
    return model.init(jax.random.key(0), x), lambda params, key: (model.apply(params, key, x) ** 2).mean()


MODELS = {"vit": vit, "lm": lm, "bert": bert, "lora": lora, "equinox": equinox, "haiku": haiku}
