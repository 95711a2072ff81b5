"""Programs of symbolic shapes draw the masks of the sizes that come."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import array, key
from jax import export
from tiers import some

import jdrop

SHAPES = {
    "b": [(1,), (100,), (4097,)], "b, 10": [(1, 10), (64, 10)], "b, 64": [(1, 64), (33, 64), (217, 64)],
    "b, t, 48": [(2, 5, 48), (8, 32, 48)], "b, c": [(3, 1), (300, 7)], "2, b": [(2, 300)],
}  # fmt: skip


def exported(function, symbols):
    keys, x = jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct(export.symbolic_shape(symbols), jnp.float32)
    return export.export(jax.jit(lambda data, x: function(jax.random.wrap_key_data(data), x)))(keys, x).call


@some("symbols", SHAPES, 3)
def test_masks_of_symbolic_shapes_are_those_of_the_sizes(symbols):
    data = jax.random.key_data(key(3))
    for rates in (0.3, np.float32([0.3])):
        call = exported(lambda k, x, r=rates: jdrop.dropout(k, x, r), symbols)
        for shape in SHAPES[symbols]:
            np.testing.assert_array_equal(call(data, jnp.ones(shape)), jdrop.dropout(key(3), jnp.ones(shape), rates))


@pytest.mark.slow
def test_monte_carlo_of_a_symbolic_batch():
    def run(k, x):
        return jdrop.mc_dropout(lambda k, x: jdrop.dropout(k, x, 0.5), k, x, 20).mean

    x, data = array((6, 10)), jax.random.key_data(key(3))
    np.testing.assert_allclose(exported(run, "b, 10")(data, x), run(key(3), x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_an_exported_predictor_runs_in_a_process_without_jdrop(tmp_path):
    """Its samples are equal to the bit: masks of ones, which nothing rounds."""

    def run(data, x):
        return jdrop.mc.samples(lambda k, x: jdrop.dropout(k, x, 0.5), jax.random.wrap_key_data(data), x, 20)

    shapes = jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct(export.symbolic_shape("b, 3"), jnp.float32)
    (tmp_path / "model").write_bytes(export.export(jax.jit(run))(*shapes).serialize())
    program = f"""
import sys, jax, numpy as np
from jax import export
call = export.deserialize(bytearray(open({str(tmp_path / "model")!r}, "rb").read())).call
for rows in (1, 5, 37):
    np.save({str(tmp_path)!r} + f"/{{rows}}.npy", call(np.array([0, 3], np.uint32), np.ones((rows, 3), np.float32)))
assert "jdrop" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    for rows in (1, 5, 37):
        wanted = run(jax.random.key_data(key(3)), jnp.ones((rows, 3)))
        np.testing.assert_array_equal(np.load(tmp_path / f"{rows}.npy"), wanted)
