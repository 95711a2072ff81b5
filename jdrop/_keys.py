"""Naming and deriving keys: every key of a run comes from one root."""

import hashlib
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdrop._checks import is_concrete


def as_typed_key(key, what: str = "key") -> Any:
    """Return `key` as one typed PRNG key, or say what is wrong with it.

    Args:
      key: a typed key of shape (), or a legacy uint32 key of the default implementation.
      what: the argument's name, for the message.

    Raises:
      TypeError: no key, or something that is not a key.
      ValueError: an array of keys, or a legacy key of another implementation's shape.
    """
    example = f"write {what}=jax.random.key(0)"
    if key is None:
        raise TypeError(f"{what}=None, but randomness is needed here: {example}, or deterministic=True.")
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise TypeError(f"{what} is a {type(key).__name__}, but a PRNG key is needed: {example}.")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape != ():
            raise ValueError(
                f"{what} has shape {key.shape}, but one key of shape () is needed: map over an "
                f"array of keys with jax.vmap, or pass one of them, such as {what}[0]."
            )
        return key
    if key.dtype != jnp.uint32:
        raise TypeError(f"{what} is an array of {key.dtype}, but a PRNG key is needed: {example}.")
    impl = jax.config.jax_default_prng_impl  # pyright: ignore
    key_shape = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    if key.shape != key_shape:
        raise ValueError(
            f"{what} is a uint32 array of shape {key.shape}, but a legacy key of the default PRNG "
            f"implementation {impl!r} has shape {key_shape}: {example}, or wrap it yourself with "
            "jax.random.wrap_key_data(data, impl=...)."
        )
    return jax.random.wrap_key_data(jnp.asarray(key))


def note_use(key):
    """Let JAX's guard against the second use of a key, `jax_debug_key_reuse`, see this one's."""
    if jax.config.jax_debug_key_reuse:  # pyright: ignore
        jax.random.bits(key, (0,), "uint32")


def used_once(key) -> Any:
    """The key for a part under `jax.checkpoint`, whose two passes draw from it and are one use: of the same words."""
    typed = as_typed_key(key)
    note_use(typed)
    return jax.random.wrap_key_data(jax.random.key_data(typed), impl=jax.random.key_impl(typed))


def fold_in(key: jax.Array, *path: str | int | jax.Array) -> jax.Array:
    """Derive the key that a path of names and numbers leads to.

    ``fold_in(key, a, b) == fold_in(fold_in(key, a), b)``, and each part is folded in as one
    64-bit code: the integer itself in two's complement, or, for a string, the bits ``01``
    followed by the first 62 bits of the SHA-256 of its UTF-8 form. The code's high and then
    its low 32 bits go through `jax.random.fold_in`. So parts never run together
    (``("ab", "c")``, ``("a", "bc")`` and ``("abc",)`` differ, and so do ``"1"`` and ``1``),
    and the same path gives the same key in every process.

    Args:
      key: a PRNG key, typed or legacy, shape (). It is not consumed.
      *path: strings and integers; integers may be traced, in [-2**62, 2**62).

    Returns:
      A key of the same kind as `key`.

    Raises:
      TypeError: a part is neither a string nor an integer (booleans are not), or no key came.
      ValueError: an integer is out of range or not a scalar.

    Example:
      >>> import jax, jdrop
      >>> root = jax.random.key(0)
      >>> step_key = jdrop.fold_in(root, "dropout", 17)
    """
    typed = as_typed_key(key)
    if not path:
        return key
    parts = [_code(part) for part in path]
    if all(isinstance(word, np.generic) for part in parts for word in part):
        words = np.array(parts, np.uint32).reshape(-1)
    else:
        words = jnp.stack([jnp.asarray(word) for part in parts for word in part])
    folded = _fold(typed, words)
    return jax.random.key_data(folded) if key.dtype == jnp.uint32 else folded


@jax.jit
def _fold(key, words):
    # Under shard_map a loop's carry must vary over the devices from the start if the words do.
    data = jax.random.key_data(key) | (words[0] & np.uint32(0))
    key = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
    # Written out, which saves a GPU the launches of a loop, but for generators whose chain XLA compiles for minutes.
    unroll = str(jax.random.key_impl(key)) == "threefry2x32"
    return lax.scan(lambda key, word: (jax.random.fold_in(key, word), None), key, words, unroll=unroll)[0]


def _code(part):
    """The 64-bit code of one part of a path, as (high, low) uint32 words."""
    if isinstance(part, str):
        digest = int.from_bytes(hashlib.sha256(part.encode("utf-8")).digest()[:8], "big")
        return _split64((digest >> 2) | (1 << 62))
    if isinstance(part, numbers.Integral) and not isinstance(part, (bool, np.bool_)):
        part = int(part)
        if not -(2**62) <= part < 2**62:
            raise ValueError(
                f"a path's integer is {part}, but it must lie in [-2**62, 2**62): write a larger one "
                f"as a string, fold_in(key, {str(part)!r})."
            )
        return _split64(part % 2**64)
    if isinstance(part, (jax.Array, np.ndarray)) and jnp.issubdtype(part.dtype, jnp.integer):
        if part.shape != ():
            raise ValueError(
                f"a path's integer has shape {part.shape}, but each part is one number: derive a key "
                "for each element with jax.vmap(lambda i: fold_in(key, i))."
            )
        if is_concrete(part):
            return _code(int(part))
        return _split64_traced(part)
    raise TypeError(
        f"a path is made of strings and integers, but {part!r} is a {type(part).__name__}: "
        "write a name or a number instead, such as fold_in(key, 'dropout', step)."
    )


def _split64(code: int):
    return np.uint32(code >> 32), np.uint32(code & 0xFFFFFFFF)


def _split64_traced(part):
    low = part.astype(jnp.uint32)
    if part.dtype.itemsize == 8:
        high = lax.shift_right_logical(part, jnp.full_like(part, 32)).astype(jnp.uint32)
    elif jnp.issubdtype(part.dtype, jnp.signedinteger):
        high = jnp.where(part < 0, jnp.uint32(0xFFFFFFFF), jnp.uint32(0))
    else:
        high = jnp.uint32(0)
    return high, low
