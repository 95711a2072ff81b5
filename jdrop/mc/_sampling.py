"""Stochastic forward passes: `vmap` over keys, as many at once as the device has room for."""

import functools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jdrop._checks import as_bool, as_size, check_callable, count_examples, is_concrete, to_array
from jdrop._keys import as_typed_key, fold_in
from jdrop._types import Predict, PyTree
from jdrop.mc._programs import as_program, inner_programs

_CACHE = 2**22  # bytes of the largest array of a chunk on a CPU: what stays in the cache is faster
_MEMORY = 2**30  # bytes of it on an accelerator, where nothing is known of the free memory
_BATCH_AXES = ("batch", "data")
_SYMBOLIC = 256  # taken for the size of an axis that is not known yet


def samples(
    predict: Predict,
    key: jax.Array,
    x: PyTree,
    num_samples: int = 100,
    *,
    consistent: bool = False,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> PyTree:
    """Draw stochastic forward passes.

    Sample i is ``predict(fold_in(key, i), x)``, so that more samples extend a run and never change its first ones. Its
    masks are those of that pass alone; its numbers too, to the rounding of matrix products, which depends on how many
    rows a library multiplies at once. What `predict` computes before its first use of the key is computed once.

    Args:
      predict: `(key, x) -> outputs`, a pure function, such as `jdrop.linen.predictor` and `jdrop.nnx.predictor` make.
        It is traced at each call, with the values that it then closes over, and compiled again only if its program has
        changed. (In a `jax.tree_util.Partial` the arrays alone may change; in a function of `jax.jit` nothing may.)
      key: a PRNG key, shape ().
      x: the inputs that `predict` takes, an array or a tree of arrays.
      num_samples: how many passes, at least 1.
      consistent: True has all examples, the first axis of `x` and of the outputs, share the masks of a sample, which
        is then one function of its input: for what joins examples, such as `jdrop.mc.acquisition.batch_bald` and the
        lines of `jdrop.mc.plots.regression_band`. Each example is a batch of one of its own.
      chunk_size: how many passes run at once, at least 1, which bounds the memory; None takes as many as keep an
        array within the cache of a CPU, or all arrays within the free memory of an accelerator. With 1 the passes run
        one after another, each by the products of a single pass.
      mesh: a `jax.sharding.Mesh`. Its axes named "batch" or "data" split the first axis of `x`, all others the samples,
        with the same masks as without it.

    Returns:
      The outputs with a new first axis of `num_samples`.

    Raises:
      TypeError: no key, `predict` is not callable, a size that is no integer, a mesh that is none.
      ValueError: a size below 1, a batch that the mesh does not divide.

    Warns:
      UserWarning: all samples are equal, or some are not finite (not under a trace).

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> predict = lambda key, x: jdrop.dropout(key, x, 0.5)
      >>> jdrop.mc.samples(predict, jax.random.key(0), jnp.ones(3), 10, chunk_size=4).shape
      (10, 3)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    predict, key, x, chunk_size, mesh = as_arguments(predict, key, x, consistent, chunk_size, mesh)
    outputs = _samples(predict, key, x, as_size("num_samples", num_samples, write=100, bits=31), chunk_size, mesh)
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if leaf.size]
    if leaves and all(is_concrete(leaf) for leaf in leaves):
        inexact = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        warn_if_not_finite(all(bool(jnp.isfinite(leaf).all()) for leaf in inexact))
        warn_if_equal(num_samples, all(bool((leaf == leaf[:1]).all()) for leaf in leaves))
    return outputs


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _samples(predict, key, x, num_samples, chunk_size, mesh):
    def draw(run, chunk, *_):
        chunks = -(-num_samples // chunk)
        if chunks == 1:
            return run(jnp.arange(num_samples, dtype=jnp.uint32)) if mesh is None else first(run(indices(chunk)))
        outputs = jax.lax.map(run, indices(chunks * chunk).reshape(chunks, chunk))
        return first(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), outputs))

    indices = functools.partial(jnp.arange, dtype=jnp.uint32)
    first = functools.partial(jax.tree.map, lambda leaf: leaf[:num_samples])
    return in_chunks(draw, predict, key, x, num_samples, chunk_size, mesh)


def in_chunks(use, predict, key, x, num_samples, chunk_size, mesh):
    """`use(run, chunk)` with a chunk of the size that fits the platform.

    `run(indices)` gives the samples of `chunk` indices, over the devices of the mesh if there is one. The platform is
    that which the program is lowered for, not that where it is traced.
    """
    axes = tuple(name for name in mesh.axis_names if name not in _BATCH_AXES) if mesh else ()
    devices = math.prod(mesh.shape[name] for name in axes)

    # Traced once for all platforms and chunks.
    one = jax.jit(lambda predict, key, x, i: predict(fold_in(key, i), x))
    size = _largest(jax.make_jaxpr(one)(predict, key, x, jnp.uint32(0)).jaxpr)

    def with_budget(budget, predict, key, x):
        run = jax.vmap(functools.partial(one, predict, key, x))
        if axes:
            spec = PartitionSpec(axes)
            run = jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec, axis_names=set(axes), check_vma=False)
        chunk = chunk_size or max(1, budget // max(size, 1)) * devices
        return use(run, -(-min(chunk, num_samples) // devices) * devices)

    cpu, other = (functools.partial(with_budget, budget) for budget in (_CACHE, _free_memory()))
    return jax.lax.platform_dependent(predict, key, x, cpu=cpu, default=other)


def _free_memory() -> int:
    """Bytes of the largest array of a chunk on an accelerator: an eighth of what is free, since several are live."""
    statistics = None if jax.default_backend() == "cpu" else jax.local_devices()[0].memory_stats()
    if not statistics or "bytes_limit" not in statistics:
        return _MEMORY
    return (statistics["bytes_limit"] - statistics["bytes_in_use"]) // 8


def _largest(jaxpr) -> int:
    """Bytes of the largest array that a program computes."""
    programs = [jaxpr, *(inner.jaxpr for inner in inner_programs(jaxpr))]
    results = [var.aval for program in programs for equation in program.eqns for var in equation.outvars]
    return max((_elements(aval.shape) * aval.dtype.itemsize for aval in results if hasattr(aval, "dtype")), default=0)


def _elements(shape) -> int:
    return math.prod(size if isinstance(size, int) else _SYMBOLIC for size in shape)


def as_arguments(predict, key, x, consistent, chunk_size, mesh, transform=None):
    """The arguments that all of Monte Carlo sampling shares, checked."""
    if not callable(predict):
        raise TypeError(f"predict is a {type(predict).__name__}, but a function (key, x) -> outputs is needed.")
    check_callable("predict", predict, "(key, x)")
    if transform is not None:
        check_callable("transform", transform, "(outputs)")
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh is a {type(mesh).__name__}, but a jax.sharding.Mesh is needed: "
            'write mesh=jax.make_mesh((jax.device_count(),), ("samples",)).'
        )
    if mesh is not None:  # its axes may be explicit, jax.make_mesh's default; XLA is to lay out the inside of predict
        mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    chunk_size = None if chunk_size is None else as_size("chunk_size", chunk_size, write=10)
    key = as_typed_key(key)
    check_inputs("x", x)
    x = on_mesh(x, mesh)
    # What is a Partial stays one, which as_program leaves alone.
    wrap = jax.tree_util.Partial if isinstance(predict, jax.tree_util.Partial) else functools.partial
    for layer in (_outputs, _consistent) if as_bool("consistent", consistent) else (_outputs,):
        predict = wrap(layer, predict)
    predict = as_program(predict, key, x)
    if transform is not None:
        transform = as_program(transform, _call.eval_shape(predict, key, x))
        predict = jax.tree_util.Partial(_transformed, transform, predict)
    return predict, key, x, chunk_size, mesh


def check_inputs(name, x):
    """Raise unless the leaves of inputs are arrays or numbers."""
    for leaf in jax.tree.leaves(x):
        if not hasattr(leaf, "dtype") or isinstance(leaf, np.ma.MaskedArray):
            to_array(name, leaf)


def _outputs(predict, key, x):
    outputs = predict(key, x)
    if not jax.tree.leaves(outputs) or not all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(outputs)):
        raise TypeError(
            f"predict returned {outputs!r}, but an array or a tree of arrays is needed: return the outputs."
        )
    return outputs


_call = jax.jit(_outputs)  # whose trace of a Partial is kept, so that a model is traced once and not at each call


def _consistent(predict, key, x):
    """Each example as a batch of one, with the key of all: so all have the masks that a batch of one has."""

    def of_one(example):
        outputs = predict(key, jax.tree.map(lambda leaf: leaf[None], example))
        for leaf in jax.tree.leaves(outputs):
            if leaf.shape[:1] != (1,):
                raise ValueError(
                    f"predict returned an array of shape {leaf.shape} for a batch of one example, but with "
                    "consistent=True the first axis of its outputs must be the examples': return an output an input."
                )
        return jax.tree.map(lambda leaf: leaf[0], outputs)

    count_examples("x", x)
    return jax.vmap(of_one)(jax.tree.map(jnp.asarray, x))


def _transformed(transform, predict, key, x):
    return transform(predict(key, x))


def on_mesh(x, mesh):
    """`x` with its first axis split over the mesh's batch axes."""
    if mesh is None:
        return x
    axes = tuple(name for name in mesh.axis_names if name in _BATCH_AXES)
    parts = math.prod(mesh.shape[name] for name in axes)

    def place(leaf):
        leaf = jnp.asarray(leaf)
        if parts > 1 and (leaf.ndim == 0 or leaf.shape[0] % parts):
            raise ValueError(
                f"an input of shape {leaf.shape} was given, but the mesh splits its first axis over {parts} devices: "
                f"pad the batch to a multiple of {parts}, or use a mesh without an axis named batch or data."
            )
        return jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(axes) if parts > 1 else PartitionSpec()))

    return jax.tree.map(place, x)


def warn_if_equal(num_samples, equal: bool):
    if num_samples > 1 and equal:
        warnings.warn(
            f"all {num_samples} Monte Carlo samples are equal, so they show no uncertainty: predict does not use its "
            "key. Probably dropout was left deterministic, or its rate is 0: make predict with jdrop.linen.predictor "
            "or jdrop.nnx.predictor, or call dropout with deterministic=False. Or what follows it hides it, such as a "
            "new head whose weights are zeros.",
            stacklevel=3,
        )


def warn_if_not_finite(finite: bool):
    if not finite:
        warnings.warn(
            "predict returned NaN or infinite outputs, and what is computed from them is no better: look at the "
            "model's parameters and inputs.",
            stacklevel=3,
        )
