"""The network of scikit-learn's digits, and its training for many keys at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdrop
from experiments.common.fitting import fresh_states

TRAIN, BATCH, RATE = 300, 50, 0.5


class Network(nn.Module):
    """64-256-256-10 with dropout before the last two layers."""

    rate: float = RATE
    width: int = 256

    @nn.compact
    def __call__(self, x, deterministic, rate=None):
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
            x = jdrop.linen.Dropout(self.rate)(x, deterministic, rate=rate)
        return nn.Dense(10)(x)


def train(keys, rates, images, labels, epochs, parts):
    """Train a network for each key and rate, all in one program.

    Each key has its own order of the examples, and trains on the first TRAIN of it. Returns (orders, parameters,
    history), where the history has the loss after each epoch on the named `parts` of the order.
    """
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    orders = jax.vmap(lambda key: jax.random.permutation(jdrop.fold_in(key, "split"), len(images)))(keys)

    def loss_fn(params, places, key, rate, order):
        x, y = images[order[places]], labels[order[places]]
        rngs = None if key is None else {"dropout": key}
        logits = Network().apply({"params": params}, x, key is None, rate, rngs=rngs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), {}

    evaluate = jdrop.training.make_eval_step(loss_fn)

    def losses(state):
        return {name: evaluate(state, places)["loss"] for name, places in parts.items()}

    states, history = jdrop.training.fit(
        fresh_states(Network(), images[:1], optax.adam(1e-3), keys, rate=rates, order=orders),
        jdrop.training.vmap_seeds(jdrop.training.make_train_step(loss_fn)),
        np.arange(TRAIN),
        epochs=epochs,
        batch_size=BATCH,
        # One network after the other: all at once take up so much memory that each call must map it anew.
        eval_fn=jax.jit(lambda states: jax.lax.map(losses, states)),
        scan=True,
    )
    return np.asarray(orders), states.params, history
