"""The grid search: the networks of all splits, rates and taus, trained and asked as one."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec

import jdrop
from experiments.common.devices import cores
from experiments.common.fitting import network_keys

BATCH, LENGTH_SCALE, TAU_PASSES, BLOCK = 128, 1e-2, 1000, 300


class Networks(NamedTuple):
    """Networks with the axes (split, rate, tau) first, and what standardises the inputs and targets of a split."""

    params: Any
    inputs: tuple
    targets: tuple


def search(key, train_data, test_data, rates, taus, *, hidden, epochs, passes) -> tuple[dict, dict]:
    """What is chosen for each split, shapes (splits,), and the predictions of its test set, (splits, n)."""
    x, y = train_data
    splits, examples = y.shape
    kept = int(0.8 * examples)
    held_out = x[:, kept:], y[:, kept:]
    fit = functools.partial(fit_networks, hidden=hidden, epochs=epochs)
    keys = network_keys(key, splits, "split")
    grid = jnp.tile(jnp.float32(rates), (splits, 1)), jnp.tile(jnp.float32(taus), (splits, 1))

    networks = fit(keys, x[:, :kept], y[:, :kept], *grid)
    scores = predict(networks, keys, *held_out, *grid, passes)["log-likelihood"].mean(1)
    best = scores.reshape(splits, -1).argmax(1)
    places = jnp.unravel_index(best, scores.shape[1:])
    rate, tau = (values[jnp.arange(splits), place][:, None] for values, place in zip(grid, places))

    best_params = jax.tree.map(lambda leaf: leaf[jnp.arange(splits), *places][:, None, None], networks.params)
    fitted = fit_taus(networks._replace(params=best_params), keys, *held_out, rate)[:, None]

    networks = fit(keys, x, y, rate, tau)
    of_grid, of_fit = (predict(networks, keys, *test_data, rate, each, passes) for each in (tau, fitted))
    predictions = {name: np.asarray(values[:, :, 0, 0]) for name, values in of_grid.items()}
    return {
        "rate": np.asarray(rate[:, 0]),
        "tau": np.asarray(tau[:, 0]),
        "RMSE": np.sqrt(((predictions["mean"] - test_data[1]) ** 2).mean(1)),
        "log-likelihood": predictions["log-likelihood"].mean(1),
        "fitted tau": np.asarray(fitted[:, 0]),
        "log-likelihood by the fitted tau": np.asarray(of_fit["log-likelihood"].mean((1, 2, 3))),
    }, predictions


def fit_networks(keys, x, y, rates, taus, **options) -> Networks:
    """Networks for data in their own units, for each key's rates and taus."""
    (x, inputs), (y, targets) = standardised(x), standardised(y)
    taus = taus * targets[1] ** 2  # of the standardised target
    return Networks(train(x, y, keys, rates, taus, **options), inputs, targets)


def standardised(values):
    mean, std = (np.expand_dims(statistic(values, 1), 1) for statistic in (np.mean, np.std))
    std = np.where(values.min(1, keepdims=True) == values.max(1, keepdims=True), 1, std)  # else one of rounding errors
    mean, std, values = (jnp.asarray(each, jnp.float32) for each in (mean, std, (values - mean) / std))
    return values, (mean, std)


@functools.partial(jax.jit, static_argnums=6)
def predict(networks, keys, x, y, rates, taus, passes):
    """The mean of the passes, their standard deviation and the log-likelihood, shapes (splits, n, rates, taus)."""

    def of_split(split):
        networks, key, x, y, rates, taus = split

        def of_block(block):
            outputs = draw_passes(networks, key, block[0], rates, passes)
            targets = jnp.broadcast_to(block[1][:, None, None], outputs.shape[1:])
            score = jdrop.mc.metrics.mixture_log_likelihood(outputs, targets, tau=taus)
            return {"mean": outputs.mean(0), "std": outputs.std(0), "log-likelihood": score}

        blocks = math.ceil(len(y) / BLOCK)  # of so many examples at once, or the passes would fill the memory
        parts = [jnp.resize(values, (blocks, math.ceil(len(y) / blocks), *values.shape[1:])) for values in (x, y)]
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[: len(y)], jax.lax.map(of_block, parts))

    return jax.lax.map(of_split, (networks, keys, jnp.float32(x), jnp.float32(y), rates, taus))


@jax.jit
def fit_taus(networks, keys, x, y, rates):
    """The tau of each split's one network that suits data which it has not learned."""

    def of_split(split):
        networks, key, x, y, rates = split
        return jdrop.mc.calibration.fit_tau(draw_passes(networks, key, x, rates, TAU_PASSES)[..., 0, 0], y)

    return jax.lax.map(of_split, (networks, keys, jnp.float32(x), jnp.float32(y), rates))


def draw_passes(networks, key, x, rates, count):
    """Outputs of a split's networks in the unit of the target, shape (count, n, rates, taus)."""
    params, (mean, std), (of_targets, scale) = networks

    def outputs(key, x):
        def of_network(params, rate):
            # Masks that all examples share are as well those of the weights, of which there are fewer.
            inputs = jdrop.dropout(jdrop.fold_in(key, "inputs"), jnp.ones(x.shape[1]), rate)
            hidden = jdrop.dropout(jdrop.fold_in(key, "hidden"), jnp.ones(params["last"].shape[1]), rate)
            kept = {"first": params["first"] * jnp.append(inputs, 1), "last": params["last"] * hidden}
            return apply(params | kept, x.T)

        return jax.vmap(jax.vmap(of_network, (0, None)))(params, rates)

    drawn = jdrop.mc.samples(outputs, jdrop.fold_in(key, "passes"), (x - mean) / std, count)
    return of_targets + scale * jnp.moveaxis(drawn, -1, 1)


def init(key, inputs, hidden):
    """Weights by Glorot & Bengio 2010; the bias of the hidden layer is the weight of an input that is 1."""
    initial = jax.nn.initializers.glorot_uniform()
    first = initial(jdrop.fold_in(key, "first"), (inputs, hidden)).T
    return {
        "first": jnp.concatenate([first, jnp.zeros((hidden, 1))], 1),
        "last": initial(jdrop.fold_in(key, "last"), (hidden, 1)).T,
        "bias": jnp.zeros(1),
    }


def apply(params, x, drop=lambda hidden: hidden):
    """Predictions, shape (n,), of inputs of shape (features, n), which have had their dropout."""
    one = jnp.ones((1, x.shape[1]))
    hidden = drop(jax.nn.relu(params["first"] @ jnp.concatenate([x, one])))
    return (params["last"] @ hidden + params["bias"])[0]


def train(x, y, keys, rates, taus, *, hidden, epochs):
    """Parameters with the axes (split, rate, tau) first.

    Args:
      x, y: standardised data, shapes (splits, n, features) and (splits, n).
      keys: a key for each split.
      rates: shape (splits, rates).
      taus: shape (splits, taus), of the standardised target.
    """
    mesh = cores(len(jax.devices()))  # all, also where the work does not divide: the results stay on the same devices
    axis = next((axis for axis, count in enumerate(rates.shape) if count % mesh.size == 0), None)
    sharded = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "device")
    of_split = sharded if axis == 0 else PartitionSpec()
    run = jax.vmap(functools.partial(train_split, hidden=hidden, epochs=epochs))
    specs = (of_split, of_split, of_split, sharded, of_split)
    run = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=sharded, check_vma=False)
    return jax.jit(run)(x, y, keys, rates, taus)


def train_split(x, y, key, rates, taus, *, hidden, epochs):
    examples, inputs = x.shape
    steps = math.ceil(examples / BATCH)
    tx = optax.adam(1e-3)
    weights = (jnp.arange(steps * BATCH) < examples).reshape(steps, BATCH)  # the last batch of an epoch is smaller

    def loss_fn(params, x, keep, y, weight, rate, tau):
        outputs = apply(params, x, lambda h: jnp.where(keep, h / (1 - rate), 0))
        l2 = LENGTH_SCALE**2 * (1 - rate) / (2 * examples * tau)
        kernels = {"first": params["first"][:, :-1], "last": params["last"]}
        return jnp.mean((outputs - y) ** 2, where=weight) + jdrop.l2(kernels, l2)

    gradient = jax.vmap(jax.grad(loss_fn), (0, None, None, None, None, None, 0))
    gradient = jax.vmap(gradient, (0, 0, 0, None, None, 0, None))

    def epoch(carry, number):
        of_epoch = jdrop.fold_in(key, "epoch", number)
        order = jax.random.permutation(jdrop.fold_in(of_epoch, "order"), examples)
        rows = jnp.pad(order, (0, steps * BATCH - examples)).reshape(steps, BATCH)
        batches = x[rows].swapaxes(1, 2)

        def draw(rate):  # all of an epoch's masks at once, which is faster than a few at each step
            inputs = jdrop.dropout(jdrop.fold_in(of_epoch, "inputs"), batches, rate)
            return inputs, jdrop.keep_mask(jdrop.fold_in(of_epoch, "hidden"), (steps, hidden, BATCH), rate)

        def step(carry, batch):
            params, state = carry
            updates, state = tx.update(gradient(params, *batch, rates, taus), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, carry, (*jax.vmap(draw, out_axes=1)(rates), y[rows], weights))[0], None

    start = init(jdrop.fold_in(key, "init"), inputs, hidden)
    params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(rates), len(taus), *leaf.shape)), start)
    return jax.lax.scan(epoch, (params, tx.init(params)), jnp.arange(epochs))[0][0]
