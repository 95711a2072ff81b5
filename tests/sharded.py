"""A network with two hidden layers, whose units can be split over devices, and what tells two runs of it apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
from cases import array, key
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jdrop
from jdrop.training import TrainState, fit, make_eval_step, make_train_step

EXAMPLES, BATCH, WIDTHS = 64, 16, {"first": 64, "second": 24}  # 4 steps an epoch, whose averages are exact
X = np.asarray(array((EXAMPLES, 6)))
Y = (X[:, 0] > 0).astype(np.int32)
WEIGHTS = {  # of a unit at its place, so that their sum over the kept units tells which these are; exact in float32
    name: (np.arange(BATCH * width).reshape(BATCH, width) * 37 % 251).astype(np.float32)
    for name, width in WIDTHS.items()
}
TX = optax.sgd(0.05, momentum=0.9)
SPLIT = {  # the first hidden layer's units lie on the axis "model"; the others are whole on every device
    "first": {"w": PartitionSpec(None, "model"), "b": PartitionSpec("model")},
    "second": {"w": PartitionSpec("model", None), "b": PartitionSpec()},
    "last": {"w": PartitionSpec(), "b": PartitionSpec()},
}
SETTING = {"epochs": 4, "batch_size": BATCH, "progress": False}


def make_loss(hidden=None):
    """The loss; its metric "digest" tells which units were kept. `hidden`: explicit axes want the second layer's."""

    def loss_fn(params, batch, key):
        x, labels = batch
        digest = jnp.float32(0)
        for name, out_sharding in (("first", None), ("second", hidden)):
            x = jnp.matmul(x, params[name]["w"], out_sharding=out_sharding) + params[name]["b"]
            if key is None:
                x = jax.nn.softplus(x)
            else:
                x = jdrop.dropout(jdrop.fold_in(key, name), jax.nn.softplus(x), 0.5)  # softplus is nowhere zero
                digest += jnp.where(x != 0, WEIGHTS[name], 0).sum()
        logits = x @ params["last"]["w"] + params["last"]["b"]
        # Not optax's, which picks by index: JAX 0.12 refuses the gradient of that under explicit axes.
        loss = -jnp.where(labels[:, None] == np.arange(2), jax.nn.log_softmax(logits), 0).sum(-1).mean()
        return loss, {"digest": digest}

    return loss_fn


LOSS = make_loss()
STEP, EVALUATE = make_train_step(LOSS), make_eval_step(LOSS)


def evaluate(state):
    return {"loss": EVALUATE(state, (X, Y))["loss"]}


def make_state(seed=0):
    drawn = np.random.default_rng(seed)
    shapes = {"first": (6, WIDTHS["first"]), "second": tuple(WIDTHS.values()), "last": (WIDTHS["second"], 2)}
    params = {
        name: {"w": drawn.normal(0, 0.25, shape).astype(np.float32), "b": np.zeros(shape[1], np.float32)}
        for name, shape in shapes.items()
    }
    return TrainState.create(params=params, tx=TX, key=key(seed))


def make_mesh(shape, names=("data", "model"), kind=AxisType.Auto):
    devices = np.array(jax.devices()[: np.prod(shape)]).reshape(shape)
    return jax.sharding.Mesh(devices, names, axis_types=(kind,) * len(names))


def laid_out(state, mesh):
    """The state with its parameters split as SPLIT says, and their momentum alike."""
    params = jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), state.params, SPLIT)
    return TrainState.create(params=params, tx=TX, key=state.key)


def train(state=None, step=STEP, mesh=None, spec=("data",), data=(X, Y), **changes):
    sharding = None if mesh is None else NamedSharding(mesh, PartitionSpec(*spec))
    state = make_state() if state is None else state
    return fit(state, step, data, sharding=sharding, **(SETTING | changes))


def digests(epochs=4):
    """The average digest of each epoch's steps, from NumPy's stream."""
    of_steps = np.zeros((epochs, EXAMPLES // BATCH), np.float32)
    for step in range(of_steps.size):
        for name, weights in WEIGHTS.items():
            of_layer = jdrop.fold_in(jdrop.fold_in(key(), "dropout", step), name)
            mask = oracle.mask("threefry2x32", np.asarray(jax.random.key_data(of_layer)), weights.shape, 0.5)
            of_steps.flat[step] += weights[mask].sum()
    return (of_steps.sum(1) / np.float32(of_steps.shape[1])).tolist()


def numbers(state):
    return jax.tree.leaves((state.step, state.params, state.opt_state))


def alike(run, other):
    """Assert that two runs drew the same masks, and that their numbers agree to the tolerance of float32."""
    assert run[1]["digest"] == other[1]["digest"]
    for name in other[1]:
        np.testing.assert_allclose(run[1][name], other[1][name], rtol=1e-5, err_msg=name)
    both = [numbers(state) if isinstance(state, TrainState) else state for state, _ in (run, other)]
    for a, b in zip(*both, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4, atol=1e-6)
