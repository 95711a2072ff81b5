"""What is private to JAX or Flax, deprecated there, or about to change: each use once, with its reason."""

import warnings

import jax
import jax.numpy as jnp
from flax.core.scope import LazyRng
from jax import lax
from jax._src import dispatch, source_info_util
from jax.interpreters import xla


def needs_mesh(primitive):
    """Have JAX say, where `primitive` is lowered, over which mesh a program is split."""
    # Private, and the only way: JAX's own operations for several GPUs do so too.
    dispatch.prim_requires_devices_during_lowering.add(primitive)


def apply_primitive(primitive, *operands, **params):
    """Run a primitive outside of `jax.jit`, as a program of its own."""
    # `jax.extend` lets a primitive be defined, but has nothing that runs it.
    return xla.apply_primitive(primitive, *operands, **params)


# A lowering rule is given a context whose fields JAX documents nowhere.


def axis_context(ctx):
    """What the program that a rule lowers for is split over."""
    return ctx.module_context.axis_context


def is_export(ctx) -> bool:
    """Whether a rule lowers for `jax.export`."""
    return ctx.module_context.lowering_parameters.for_export


def is_local(context) -> bool:
    """Whether a program is that of one device: the only one, or each of those that a shard_map splits it over."""
    if hasattr(context, "manual_axes"):
        return set(context.manual_axes) == set(context.mesh.axis_names)
    return getattr(context, "num_devices", 1) == 1


def can_partition(context, platform) -> bool:
    """Whether XLA asks how to split an operation: not on a TPU (jax-ml/jax#38196), nor without a mesh."""
    return platform != "tpu" and getattr(context, "abstract_mesh", None) is not None


def ignore_triton():
    """Ignore, in a `warnings.catch_warnings`, what JAX 0.11 says of Pallas's Triton: nothing a user could change."""
    warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated")


# The name of what varies over the axes of a mesh, inside of shard_map, has changed twice, and may again.


def varying(x) -> frozenset:
    """The axes of a mesh over which `x` varies."""
    return jax.typeof(x).manual_axis_type.varying


def vary(x, axes):
    """`x`, varying over these axes too."""
    missing = axes - varying(x)
    return lax.pcast(x, tuple(missing), to="varying") if missing else x


def result_like(x, shape):
    """The shape and dtype of a kernel's result, which varies as `x` does."""
    return jax.ShapeDtypeStruct(shape, x.dtype, manual_axis_type=jax.typeof(x).manual_axis_type)


def zeros_of(result):
    """Zeros like what `jax.eval_shape` says of a result, which vary as it does."""
    kind = result.manual_axis_type
    return vary(jnp.zeros(result.shape, result.dtype), kind.varying if kind else frozenset())


def add_stream(scope, name, source):
    """Give a Linen scope the random stream `name`, if it has none, made from another of its own."""
    if name not in scope.rngs and source in scope.rngs:
        scope.rngs[name] = LazyRng.create(scope.rngs[source], name)
        scope.rng_counters[name] = 0


def in_a_table(module) -> bool:
    """Whether Flax's `nnx.tabulate` is calling a module: it then jits each call, and says so only by this number."""
    return hasattr(module, "_nnx_tabulate_id")


def place_of(source_info) -> tuple[str, str]:
    """Where in a program an operation is: the names of the modules around it, and the line that asked for it."""
    # What JAX's own error messages are made of; `jax.extend` gives neither.
    frame = source_info_util.user_frame(source_info.traceback)
    line = f"{frame.file_name.rsplit('/', 1)[-1]}:{frame.start_line}" if frame else ""
    return str(source_info.name_stack), line


def replace_in_random(name, wrap):
    """Replace a private function of `jax.random` by what `wrap` makes of it."""
    # `bernoulli` itself may have been imported by its name before; what it calls it looks up at each call.
    names = jax.random.bernoulli.__globals__
    names[name] = wrap(names[name])
