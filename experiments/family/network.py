"""The network and the kinds of dropout in it."""

import jax
import jax.numpy as jnp
import numpy as np

import jdrop

WIDTH, DEPTH, CLASSES, MASKS = 128, 2, 10, 4


def init(key, kind):
    """Parameters of a network, and those that a kind of dropout learns beside them."""
    sizes = [(64, WIDTH), *[(WIDTH, WIDTH)] * DEPTH, (WIDTH, CLASSES)]
    keys = [jdrop.fold_in(key, "layer", i) for i in range(len(sizes))]
    gain = 1.0 if kind == "alpha_dropout" else 2.0
    layers = [
        {"kernel": (gain / size[0]) ** 0.5 * jax.random.normal(k, size), "bias": jnp.zeros(size[1])}
        for k, size in zip(keys, sizes)
    ]
    if kind == "variational_dropout":
        for layer in layers:
            layer["log_alpha"] = jnp.full(layer["kernel"].shape, -4.0)
    return {"layers": layers, "logits": jnp.zeros(DEPTH + 1)}


def masks():
    """Those of masksembles, fixed before training, one set a hidden layer."""
    with jax.ensure_compile_time_eval():
        return [jdrop.masksembles_masks(jax.random.key(i), MASKS, WIDTH) for i in range(DEPTH + 1)]


def apply(params, key, x, rate, kind, masks):
    """Logits of images (n, 64); a key that is None is evaluation."""
    evaluation = key is None
    part = (lambda *path: None) if evaluation else (lambda *path: jdrop.fold_in(key, *path))
    activation = jax.nn.selu if kind == "alpha_dropout" else jax.nn.relu
    layers = params["layers"]
    if kind == "drop_connect":
        layers = jdrop.drop_connect(part("weights"), layers, rate, evaluation)
    if kind == "token_dropout":
        x = jdrop.token_dropout(part("input"), x.reshape(-1, 8, 8), rate, evaluation).reshape(x.shape)
    if kind == "drop_block":
        images = x.reshape(-1, 8, 8, 1)
        x = jdrop.drop_block(part("input"), images, rate, evaluation, block_size=3).reshape(x.shape)

    def dense(i, h):
        if kind == "variational_dropout":
            layer = layers[i]
            y = jdrop.variational_dropout(part("weights", i), h, layer["kernel"], layer["log_alpha"], evaluation)
            return y + layer["bias"]
        return h @ layers[i]["kernel"] + layers[i]["bias"]

    def hidden(i, h):
        h = activation(dense(i, h))
        if kind in ("dropout", "gaussian_dropout", "gaussian_noise", "alpha_dropout"):
            return getattr(jdrop, kind)(part("units", i), h, rate, evaluation)
        if kind == "r_drop":
            return jdrop.dropout(part("units", i), h, rate, evaluation)
        if kind == "concrete_dropout":
            return jdrop.concrete_dropout(part("units", i), h, learned_rate(params, rate, i), evaluation)
        if kind == "masksembles":
            return member(key, h, masks[i])
        return h

    h = hidden(0, x)
    for i in range(1, DEPTH + 1):
        branch = hidden(i, h)
        h = h + (jdrop.drop_path(part("path", i), branch, rate, evaluation) if kind == "drop_path" else branch)
    if kind == "multi_sample_dropout":
        heads = jdrop.multi_sample_dropout(part("head"), h, rate, evaluation, head=lambda h: dense(DEPTH + 1, h))
        return jax.nn.logsumexp(jax.nn.log_softmax(heads), 0) - np.log(len(heads))
    return dense(DEPTH + 1, h)


def member(key, h, masks):
    """A hidden layer under masksembles: a member for each example while training, by the key at a prediction."""
    if key is None:
        return h
    index = jax.random.randint(jdrop.fold_in(key, "member"), (len(h),), 0, MASKS)
    return jnp.where(masks[index], h, 0)


def learned_rate(params, rate, i):
    """The rate of a layer with concrete dropout, which starts from `rate`."""
    return jax.nn.sigmoid(params["logits"][i] + jnp.log(rate) - jnp.log1p(-rate))


def penalty(params, rate, kind, examples):
    """What a kind adds to the loss."""
    if kind == "variational_dropout":
        return sum(jdrop.variational_kl(layer["log_alpha"]) for layer in params["layers"]) / examples
    if kind == "concrete_dropout":
        return sum(
            jdrop.concrete_regularizer(
                params["layers"][i + 1]["kernel"], learned_rate(params, rate, i), weight=1e-6, dropout=1 / examples
            )
            for i in range(DEPTH + 1)
        )
    return 0.0
