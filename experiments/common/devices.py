"""The cores of a processor as devices of JAX."""

import os

import jax
from jax.sharding import AxisType, Mesh


def use_all_cores():
    """A device for each core; called before anything is computed.

    XLA shares the work of one device badly among cores, where a step is many small products.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count())


def cores(count) -> Mesh:
    """As many devices as divide `count` runs evenly, along one axis, "device"."""
    size = max(size for size in range(1, len(jax.devices()) + 1) if count % size == 0)
    return jax.make_mesh((size,), ("device",), axis_types=(AxisType.Auto,), devices=jax.devices()[:size])
