"""Stochastic forward passes: `vmap` over keys, with rounding that does not depend on how many run at once."""

import functools
import math
import warnings

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jdrop.keys import as_typed_key, fold_in
from jdrop.masks.shape import as_size
from jdrop.mc.exact import exact_vmap

_AT_ONCE = 50  # passes, where they fit: more cost memory and save no time
_BUDGET = 2**22  # bytes for the operands of one operation: what stays in the cache is faster
_BATCH_AXES = ("batch", "data")


def samples(predict, key, x, num_samples=100, *, chunk_size=None, mesh=None):
    """Draw stochastic forward passes.

    Sample i is ``predict(fold_in(key, i), x)``, so that more samples extend a run and never change its first ones.
    What `predict` computes before its first use of the key is computed once for all samples. Products run a sample at a
    time, so that their rounding is that of one pass; a sum that XLA fuses with dropout itself (of a single image's
    channels, say) may differ in its last bits, but not with a `chunk_size` of 1.

    Args:
      predict: `(key, x) -> outputs`, a pure function, such as `jdrop.linen.predictor` and `jdrop.nnx.predictor` make.
      key: a PRNG key, shape ().
      x: the inputs that `predict` takes, an array or a tree of arrays.
      num_samples: how many passes, at least 1.
      chunk_size: how many passes run at once, at least 1; None takes 50, or as many as keep an operation to 4 MiB. It
        bounds the memory and never changes the result.
      mesh: a `jax.sharding.Mesh`. Its axes named "batch" or "data" split the first axis of `x`, all others the samples,
        with the same masks as without it. Split samples are the same to the bit; where the batch is split, the
        products have fewer rows, which a library may sum in another order.

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
    outputs = _samples(predict, key, on_mesh(x, mesh), as_size("num_samples", num_samples), chunk_size, mesh)
    leaves = [leaf for leaf in jax.tree.leaves(outputs) if leaf.size]
    if leaves and not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        inexact = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        warn_if_not_finite(all(bool(jnp.isfinite(leaf).all()) for leaf in inexact))
        warn_if_equal(num_samples, all(bool((leaf == leaf[0]).all()) for leaf in leaves))
    return outputs


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _samples(predict, key, x, num_samples, chunk_size, mesh):
    run, chunk = chunk_function(predict, key, x, num_samples, chunk_size, mesh)
    chunks = -(-num_samples // chunk)
    indices = jnp.arange(chunks * chunk, dtype=jnp.uint32)
    if chunks == 1:
        return jax.tree.map(lambda leaf: leaf[:num_samples], run(indices))
    outputs = jax.lax.map(run, indices.reshape(chunks, chunk))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_samples], outputs)


def chunk_function(predict, key, x, num_samples, chunk_size, mesh):
    """(run, n): `run(indices)` gives the samples of n indices, over the devices of the mesh if there is one."""
    run, size = exact_vmap(lambda i: predict(fold_in(key, i), x), jnp.uint32(0))
    chunk_size = max(1, min(_AT_ONCE, _BUDGET // max(size, 1))) if chunk_size is None else chunk_size
    axes = tuple(name for name in mesh.axis_names if name not in _BATCH_AXES) if mesh else ()
    if not axes:
        return run, min(chunk_size, num_samples)
    devices = math.prod(mesh.shape[name] for name in axes)
    spec = PartitionSpec(axes)
    run = jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec, axis_names=set(axes), check_vma=False)
    return run, -(-min(chunk_size, num_samples) // devices) * devices


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
    chunk_size = None if chunk_size is None else as_size("chunk_size", chunk_size)
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
