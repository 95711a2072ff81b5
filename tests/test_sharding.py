"""A mask is the same on every mesh, and drawing it moves no data between devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import IMPLEMENTATIONS, array, key
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tiers import some

import jdrop

COLLECTIVES = re.compile(r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter")
CASES = [
    ((8,), ("a",), (16, 96), ("a", None)),
    ((8,), ("a",), (16, 96), (None, "a")),
    ((8,), ("a",), (64, 160), (None, "a")),
    ((8,), ("a",), (8, 100), ("a", None)),
    ((8,), ("a",), (16, 24), (None, "a")),
    ((8,), ("a",), (4096,), ("a",)),
    ((8,), ("a",), (4104,), ("a",)),
    ((2, 4), ("a", "b"), (16, 256), ("a", "b")),
    ((2, 4), ("a", "b"), (16, 256), (("a", "b"), None)),
    ((2, 4), ("a", "b"), (6, 10, 64), ("a", None, "b")),
    ((4, 2), ("a", "b"), (8, 30), ("a", "b")),
    ((4, 2), ("a", "b"), (1024, 64), ("a", "b")),
    ((2, 2, 2), ("a", "b", "c"), (4, 6, 64), ("a", "b", "c")),
    ((2, 4), ("a", "b"), (4, 40, 20), (None, "a", "b")),
    ((2, 2, 2), ("a", "b", "c"), (4, 6, 16), ("c", "b", "a")),
    ((2, 2, 2), ("a", "b", "c"), (4, 6, 14), ("c", "b", "a")),
    ((2, 2, 2), ("a", "b", "c"), (8, 1040), (("b", "a"), "c")),
    ((2, 2, 2), ("a", "b", "c"), (16, 512, 4), ("a", "b", "c")),  # as many planes as word rows
]


@some(("mesh_shape", "names", "shape", "partition"), CASES, 3)
def test_bit_equal_to_one_device_and_without_a_collective(mesh_shape, names, shape, partition):
    mesh = jax.make_mesh(mesh_shape, names, axis_types=(AxisType.Auto,) * len(names))
    sharding = NamedSharding(mesh, PartitionSpec(*partition))
    x = array(shape)

    def f(k, x):
        return jdrop.dropout(k, x, 0.3), jax.grad(lambda x: (jdrop.dropout(k, x, 0.3) ** 2).sum())(x)

    replicated = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(f, in_shardings=(replicated, sharding), out_shardings=sharding).lower(key(1), x).compile()
    found = COLLECTIVES.search(compiled.as_text())
    assert not found, found
    for one, many in zip(f(key(1), x), compiled(key(1), jax.device_put(x, sharding))):
        np.testing.assert_array_equal(np.asarray(many), np.asarray(one))

    mask = jax.jit(lambda k: jdrop.keep_mask(k, shape, 0.3), out_shardings=sharding).lower(key(1)).compile()
    assert not COLLECTIVES.search(mask.as_text())
    np.testing.assert_array_equal(np.asarray(mask(key(1))), np.asarray(jdrop.keep_mask(key(1), shape, 0.3)))


def test_vmapped_keys_over_devices_need_no_collective():
    keys = jax.random.split(key(1), 16)
    sharding = NamedSharding(jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,)), PartitionSpec("a"))
    draw = jax.vmap(lambda k: jdrop.keep_mask(k, (4, 64), 0.3))
    split = jax.device_put(keys, sharding)
    assert not COLLECTIVES.search(jax.jit(draw).lower(split).compile().as_text())
    np.testing.assert_array_equal(np.asarray(jax.jit(draw)(split)), np.asarray(draw(keys)))


@some("impl", IMPLEMENTATIONS, 2)
def test_every_generator_can_be_partitioned(impl):
    sharding = NamedSharding(jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,)), PartitionSpec("a"))
    x = jax.device_put(array((16, 96)), sharding)
    compiled = jax.jit(lambda k, x: jdrop.dropout(k, x, 0.3)).lower(key(1, impl), x).compile()
    assert not COLLECTIVES.search(compiled.as_text())
    np.testing.assert_array_equal(
        np.asarray(compiled(key(1, impl), x)), jdrop.dropout(key(1, impl), array((16, 96)), 0.3)
    )


@pytest.mark.parametrize(
    ("shape", "partition"), [((16, 256), ("a", "b")), ((8, 30), ("a", "b")), ((4, 6, 14), ("a", "b", None))]
)
def test_shard_map_takes_its_shard_of_the_global_mask(shape, partition):
    """The mask is drawn outside, where its shape is the global one, and each device draws no more than its shard."""
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    spec = PartitionSpec(*partition)

    def local(kept, x):
        return jnp.where(kept, x / 0.7, 0)

    def step(k, x):
        kept = jdrop.keep_mask(k, x.shape, 0.3)
        return jax.shard_map(local, mesh=mesh, in_specs=(spec, spec), out_specs=spec)(kept, x)

    x = jax.device_put(array(shape), NamedSharding(mesh, spec))
    compiled = jax.jit(step).lower(key(1), x).compile()
    assert not COLLECTIVES.search(compiled.as_text())
    one = jdrop.keep_mask(key(1), shape, 0.3)
    np.testing.assert_array_equal(np.asarray(compiled(key(1), x)) != 0, np.asarray(one))


@pytest.mark.parametrize("shape", [(16, 64), (8, 100)])
def test_explicit_axes(shape):
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Explicit,))
    x = array(shape)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("a", None)))
        y = jax.jit(lambda k, x: jdrop.dropout(k, x, 0.3))(key(1), sharded)
        gradient = jax.jit(jax.grad(lambda x: jdrop.dropout(key(1), x, 0.3).sum()))(sharded)
        assert jax.typeof(y).sharding.spec == PartitionSpec("a", None)
    np.testing.assert_array_equal(np.asarray(y), np.asarray(jdrop.dropout(key(1), x, 0.3)))
    np.testing.assert_array_equal(np.asarray(gradient), np.asarray(jdrop.dropout(key(1), jnp.ones(shape), 0.3)))


@some("rate", ["static", "traced", "per shard", "per element"], 1)
def test_shard_map_draws_each_shard_from_its_own_key(rate):
    """A shard's key is folded from its place on the mesh; JAX's check of what varies over devices stays on."""
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    x, rates = array((8, 100)), {"per element": jax.random.uniform(key(3), (8, 100))}.get(rate, jnp.full((8, 1), 0.3))

    def local(x, rates):
        shard_key = jdrop.fold_in(key(1), "shard", jax.lax.axis_index("a"))
        given = {"static": 0.3, "traced": jnp.float32(0.3), "per shard": rates[0, 0]}.get(rate, rates)
        return jdrop.dropout(shard_key, x, given)

    def total(x):
        spec = PartitionSpec("a")
        y = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec)(x, rates)
        return y.sum(), y

    (_, y), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(x)
    for i in range(8):
        wanted = jdrop.dropout(jdrop.fold_in(key(1), "shard", i), x[i : i + 1], rates[i : i + 1])
        np.testing.assert_array_equal(np.asarray(y)[i : i + 1], np.asarray(wanted))
    np.testing.assert_array_equal(np.asarray(gradient) * np.asarray(x), np.asarray(y))
