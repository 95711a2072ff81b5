"""The case matrix that the tests share: it holds the edges."""

import jax
import jax.numpy as jnp
import numpy as np

IMPLEMENTATIONS = ("threefry2x32", "threefry4x32", "philox4x32")
RATES = (0.0, 0.005, 0.1, 1 / 3, 0.5, 0.9, 1.0)
SHAPES = ((), (0,), (1,), (31,), (33,), (4, 0, 3), (3, 5), (7, 1), (4, 64), (2, 3, 100), (2, 1025), (2, 3, 4, 5, 6))
SCALINGS = ("inverted", "classic", "none")
SAVES = ("key", "mask")
FLOAT8 = tuple(
    dtype
    for name in ("e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")
    if (dtype := getattr(jnp, f"float8_{name}", None)) is not None
)
DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64, *FLOAT8)


def key(seed=0, impl="threefry2x32"):
    return jax.random.key(seed, impl=impl)


def changed(x, at, value):
    """A copy of x in NumPy with other values at a place."""
    x = np.array(x)
    x[at] = value
    return x


def assert_in_both_precisions(function, arguments, wanted):
    """A jitted function's dict of results is `wanted`: to 1e-6 in float32, to 1e-12 in float64."""
    for dtype, tolerance in ((jnp.float32, 1e-6), (jnp.float64, 1e-12)):
        with jax.enable_x64(dtype == jnp.float64):
            results = function(*(jnp.asarray(a, dtype) for a in arguments))
            assert results.keys() == wanted.keys()
            for name, value in wanted.items():
                assert results[name].dtype == dtype, name
                np.testing.assert_allclose(results[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


def array(shape, dtype=jnp.float32, seed=1):
    """Values of about ±1 that no dtype rounds to zero or overflows."""
    draw = np.random.default_rng(seed)
    values = np.float32(draw.uniform(0.5, 1.5, shape) * draw.choice([-1.0, 1.0], shape))
    return jnp.asarray(values.astype(dtype), dtype)  # which compiles nothing, where NumPy converts
