"""The cores of a processor as devices of JAX."""

import os

import jax
from jax.sharding import AxisType, Mesh


def use_all_cores():
    """A device for each core; called before anything is computed.

    XLA shares the work of one device badly among cores, where a step is many small products.
    """
    jax.config.update("jax_num_cpu_devices", os.cpu_count())


def cores() -> Mesh:
    """All devices along one axis, "device"."""
    return jax.make_mesh((len(jax.devices()),), ("device",), axis_types=(AxisType.Auto,))
