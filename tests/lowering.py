"""What the compiler of another platform is given."""

import contextlib

import jax
from jax.sharding import AbstractMesh


def lowered(platform, f, *arguments):
    """The program of `f` for a platform; of GPUs JAX 0.11 and later ask which."""
    target = contextlib.nullcontext()
    if platform == "cuda" and hasattr(jax.sharding, "AbstractDevice"):
        h100 = jax.sharding.AbstractDevice("NVIDIA H100", None, platform="cuda")
        target = jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=h100))
    with target:
        return jax.jit(f).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
