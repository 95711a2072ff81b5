"""Keys are derived injectively, and the same in every process."""

import hashlib
import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import IMPLEMENTATIONS, key

import jdrop


def data(k):
    return tuple(np.asarray(jax.random.key_data(k)).ravel().tolist())


PATHS = (
    ("ab", "c"), ("a", "bc"), ("abc",), ("a", "b", "c"), ("",), ("", ""), (), ("1",), (1,), ("a", 1), ("a1",), (1, "a"),
    (0,), (0, 0), (-1,), (2**32 - 1,), (2**32,), (2**31,), (-(2**31),), (2**62 - 1,), (-(2**62),), (1, 2), (2, 1),
    ("é",), ("e\u0301",), ("a\0",), ("a",), ("0",), ("dropout", 0), ("dropout", 1), ("dropout",), ("shuffle", 0),
)  # fmt: skip


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_different_paths_give_different_keys(impl):
    derived = [data(jdrop.fold_in(key(0, impl), *path)) for path in PATHS]
    assert len(set(derived)) == len(PATHS)


def test_a_path_is_a_walk():
    for head, tail in itertools.product(PATHS[:9], repeat=2):
        assert data(jdrop.fold_in(jdrop.fold_in(key(), *head), *tail)) == data(jdrop.fold_in(key(), *head, *tail))


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int16, jnp.uint16, jnp.int32, jnp.uint32])
def test_integers_count_by_value_traced_or_not(dtype):
    limits = jnp.iinfo(dtype)
    traced = jax.jit(lambda i: jdrop.fold_in(key(), "step", i))
    for value in (limits.min, -1 if limits.min else 0, 0, 1, limits.max):
        wanted = data(jdrop.fold_in(key(), "step", value))
        assert data(jdrop.fold_in(key(), "step", dtype(value))) == wanted
        assert data(jdrop.fold_in(key(), "step", np.dtype(dtype).type(value))) == wanted
        assert data(traced(dtype(value))) == wanted


def test_64_bit_integers_count_by_value():
    with jax.enable_x64(True):
        traced = jax.jit(lambda i: jdrop.fold_in(key(), i))
        for value in (2**62 - 1, -(2**62), 2**40 + 3, -(2**40), -1, 0):
            assert data(traced(jnp.int64(value))) == data(jdrop.fold_in(key(), value))


def test_a_vmapped_walk_is_each_walk():
    together = jax.random.key_data(jax.vmap(lambda i: jdrop.fold_in(key(), "sample", i))(jnp.arange(5)))
    assert [tuple(row) for row in together.tolist()] == [data(jdrop.fold_in(key(), "sample", i)) for i in range(5)]


def test_the_derivation_is_the_documented_one():
    """Written again from the docstring: SHA-256, 62 bits under the tag 01, high word then low word."""

    def walk(k, *codes):
        for code in codes:
            k = jax.random.fold_in(jax.random.fold_in(k, code >> 32), code & 0xFFFFFFFF)
        return data(k)

    name = int(hashlib.sha256(b"dropout").hexdigest()[:16], 16) // 4 + 2**62
    assert data(jdrop.fold_in(key(), "dropout", 17, -1)) == walk(key(), name, 17, 2**64 - 1)
    assert data(jdrop.fold_in(key(0), "dropout", 17)) == (3972442938, 1081843210)


@pytest.mark.slow
def test_every_process_derives_the_same_key():
    code = "import jax, jdrop; k = jdrop.fold_in(jax.random.key(0), 'dropout', 3); print(jax.random.key_data(k))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{jax.random.key_data(jdrop.fold_in(key(), 'dropout', 3))}\n"}


def test_a_legacy_key_stays_legacy():
    derived = jdrop.fold_in(jax.random.PRNGKey(0), "a")
    assert derived.dtype == jnp.uint32
    assert data(derived) == data(jdrop.fold_in(key(), "a"))


@pytest.mark.parametrize("part", [1.0, True, None, b"a", (1,), jnp.array(1.0), jnp.array(True), np.bool_(1)])
def test_a_part_of_a_wrong_type(part):
    with pytest.raises(TypeError, match=r"made of strings and integers.*fold_in\(key, 'dropout', step\)"):
        jdrop.fold_in(key(), "a", part)


@pytest.mark.parametrize("part", [2**62, -(2**62) - 1, 2**70])
def test_an_integer_out_of_range(part):
    with pytest.raises(ValueError, match=r"must lie in \[-2\*\*62, 2\*\*62\)"):
        jdrop.fold_in(key(), part)


def test_an_array_of_integers():
    with pytest.raises(ValueError, match=r"shape \(3,\).*jax.vmap"):
        jdrop.fold_in(key(), jnp.arange(3))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_deriving_and_drawing_pass_the_key_reuse_check(impl):
    with jax.debug_key_reuse(True):

        @jax.jit
        def run(root):
            keys = [jdrop.fold_in(root, "dropout", i) for i in range(3)]
            return sum(jdrop.dropout(k, jnp.ones(4), 0.5) for k in keys)

        run(key(0, impl))
