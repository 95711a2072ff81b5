"""Stochastic forward passes: `vmap` over keys, as many at once as the device has room for."""

import functools
import math
import warnings

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jdrop._checks import as_size, is_concrete
from jdrop._keys import as_typed_key, fold_in
from jdrop._types import Predict, PyTree

_CACHE = 2**22  # bytes of the largest array of a chunk on a CPU: what stays in the cache is faster
_MEMORY = 2**30  # bytes of it on an accelerator, where nothing is known of the free memory
_BATCH_AXES = ("batch", "data")


def samples(
    predict: Predict,
    key: jax.Array,
    x: PyTree,
    num_samples: int = 100,
    *,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> PyTree:
    """Draw stochastic forward passes.

    Sample i is ``predict(fold_in(key, i), x)``, so that more samples extend a run and never change its first ones. Its
    masks are those of that pass alone; its numbers too, to the rounding of matrix products, which depends on how many
    rows a library multiplies at once. What `predict` computes before its first use of the key is computed once.

    Args:
      predict: `(key, x) -> outputs`, a pure function, such as `jdrop.linen.predictor` and `jdrop.nnx.predictor` make.
      key: a PRNG key, shape ().
      x: the inputs that `predict` takes, an array or a tree of arrays.
      num_samples: how many passes, at least 1.
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
    predict, key, chunk_size, mesh = as_arguments(predict, key, chunk_size, mesh)
    outputs = _samples(predict, key, on_mesh(x, mesh), as_size("num_samples", num_samples, write=100), chunk_size, mesh)
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if leaf.size]
    if leaves and all(is_concrete(leaf) for leaf in leaves):
        inexact = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        warn_if_not_finite(all(bool(jnp.isfinite(leaf).all()) for leaf in inexact))
        warn_if_equal(num_samples, all(bool((leaf == leaf[0]).all()) for leaf in leaves))
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
    largest = 0
    for equation in jaxpr.eqns:
        arrays = [var.aval for var in equation.outvars if hasattr(var.aval, "dtype")]
        inner = [sub for sub in jax.tree.leaves(list(equation.params.values())) if hasattr(sub, "eqns")]
        largest = max(
            largest, *(a.size * a.dtype.itemsize for a in arrays), *(_largest(getattr(s, "jaxpr", s)) for s in inner)
        )
    return largest


def as_arguments(predict, key, chunk_size, mesh):
    """The arguments that all of Monte Carlo sampling shares, checked."""
    if not callable(predict):
        raise TypeError(f"predict is a {type(predict).__name__}, but a function (key, x) -> outputs is needed.")
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(
            f"mesh is a {type(mesh).__name__}, but a jax.sharding.Mesh is needed: "
            'write mesh=jax.make_mesh((jax.device_count(),), ("samples",)).'
        )
    if mesh is not None:  # its axes may be explicit, jax.make_mesh's default; XLA is to lay out the inside of predict
        mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    chunk_size = None if chunk_size is None else as_size("chunk_size", chunk_size, write=10)
    return as_partial(predict), as_typed_key(key), chunk_size, mesh


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


def as_partial(function):
    """`function` as a pytree: the arrays of a `Partial` are traced, anything else is part of its identity."""
    return function if isinstance(function, jax.tree_util.Partial) else jax.tree_util.Partial(function)


def warn_if_equal(num_samples, equal: bool):
    if num_samples > 1 and equal:
        warnings.warn(
            f"all {num_samples} Monte Carlo samples are equal, so they show no uncertainty: predict does not use its "
            "key. Probably dropout was left deterministic, or its rate is 0: make predict with jdrop.linen.predictor "
            "or jdrop.nnx.predictor, or call dropout with deterministic=False.",
            stacklevel=3,
        )


def warn_if_not_finite(finite: bool):
    if not finite:
        warnings.warn(
            "predict returned NaN or infinite outputs, and what is computed from them is no better: look at the "
            "model's parameters and inputs.",
            stacklevel=3,
        )
