"""Programs of whole models, to be compiled for accelerators: a transformer block, Monte Carlo, seeds, meshes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jdrop
from experiments.accelerators.aot import with_gradient
from experiments.common.attention import flax, gradients, ours
from experiments.common.transformer import Block, Net


def compiled(compiler, what, detail) -> dict:
    """What the compiler made of the program `what`, such as "block jdrop", and its `detail`."""
    kind, *which = what.split()
    return {"attention": attention, "block": block, "family": family, "seeds": seeds, "mesh": mesh}.get(
        kind, monte_carlo
    )(compiler, detail, *(which or [kind]))


def attention(compiler, detail, layer):
    """All gradients of attention with dropout of its weights, of bfloat16 (1, length, 4, 64)."""
    x = jax.ShapeDtypeStruct((1, int(detail), 4, 64), jnp.bfloat16)
    function = {"jdrop": ours, "flax": flax}[layer]
    return compiler(gradients(function), x, x, x, jax.random.key(0))


def block(compiler, detail, layer):
    """The forward and backward pass of the transformer block, of bfloat16 (16, 512, 1024)."""
    model = Block({"none": None, "jdrop": jdrop.linen.Dropout, "flax": nn.Dropout}[layer])
    x = jax.ShapeDtypeStruct((16, 512, 1024), jnp.bfloat16)
    params = jax.eval_shape(Block(None).init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), params)

    def gradient(params, x, key):
        def forward(params, x):
            return model.apply(params, x, rngs={"dropout": key})

        apply = jax.checkpoint(forward) if detail == "checkpoint" else forward
        return jax.value_and_grad(lambda params, x: apply(params, x).astype(jnp.float32).mean(), (0, 1))(params, x)

    return compiler(gradient, params, x, jax.random.key(0))


def family(compiler, detail, name):
    """A kind of dropout of bfloat16 (16, 512, 1024), and its gradient."""
    function = functools.partial(getattr(jdrop, name), **({"std": 0.1} if name == "gaussian_noise" else {"rate": 0.1}))
    x = jax.ShapeDtypeStruct((16, 512, 1024), jnp.bfloat16)
    return compiler(with_gradient(function), jax.random.key(0), x)


def monte_carlo(compiler, detail, what):
    """So many samples of `Net`."""
    x, count = jax.ShapeDtypeStruct((256, 784), jnp.float32), int(detail)
    variables = jax.eval_shape(Net().init, jax.random.key(0), x)

    def run(variables, key, x):
        predict = jdrop.linen.predictor(Net(), variables)
        if what == "mc_dropout":
            return jax.tree.leaves(jdrop.mc_dropout(predict, key, x, count))[:2]
        if what == "samples":
            return jdrop.mc.samples(predict, key, x, count)
        return jax.vmap(lambda i: predict(jdrop.fold_in(key, i), x))(jnp.arange(count))

    return compiler(run, variables, jax.random.key(0), x)


def seeds(compiler, detail, _):
    """A train step of `Net` for so many seeds at once, 1 being a step alone."""
    count = int(detail)

    def loss_fn(params, batch, key):
        logits = Net().apply({"params": params}, batch[0], True, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean(), {}

    def make(key):
        params = Net().init(key, jnp.ones((1, 784)))["params"]
        return jdrop.training.TrainState.create(params=params, tx=optax.adam(1e-3), key=key)

    step = jdrop.training.make_train_step(loss_fn)
    keys, batch = jax.random.split(jax.random.key(0), count), (jnp.ones((256, 784)), jnp.zeros(256, jnp.int32))
    if count == 1:
        return compiler(lambda *given: step(*given), jax.eval_shape(make, keys[0]), batch)
    batches = jax.tree.map(lambda leaf: jnp.stack([leaf] * count), batch)
    every = jdrop.training.vmap_seeds(step, donate_argnums=0)
    return compiler(lambda *given: every(*given), jax.eval_shape(jax.vmap(make), keys), batches)


def mesh(compiler, detail, kind):
    """Dropout of bfloat16 (8192, 8192) and its gradient, split along both axes."""
    count = int(detail)
    devices = np.array(compiler.devices(count)).reshape((2, 2) if count == 4 else (32, 8))
    axes = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}[kind]
    over = Mesh(devices, ("data", "model"), axis_types=(axes,) * 2)
    split, whole = NamedSharding(over, P("data", "model")), NamedSharding(over, P())
    both = with_gradient(functools.partial(jdrop.dropout, rate=0.1))
    with jax.set_mesh(over):
        x = jax.ShapeDtypeStruct((8192, 8192), jnp.bfloat16)
        return compiler(both, jax.eval_shape(lambda: jax.random.key(0)), x, shardings=(whole, split))
