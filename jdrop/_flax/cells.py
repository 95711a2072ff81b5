"""What a recurrent cell that drops does at each step, in Linen and NNX alike."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdrop._keys import as_typed_key, fold_in
from jdrop.functional._dropout import dropout
from jdrop.functional._recurrent import zoneout


class DropoutCarry(NamedTuple):
    """The carry of a cell that drops: the wrapped cell's own, and where its masks come from.

    The keys travel in the carry, not in a stream of the framework's: so the masks are what the cell says they are,
    however the loop over time splits or shares its streams.
    """

    cell: Any  # the wrapped cell's carry
    keys: dict[str, jax.Array] | None  # one key a mask; None where there is no stream
    step: jax.Array | None  # int32, how many steps were made


# By the numbers of its parts, as a tuple, since Flax's tables of models can't take a tuple's names.
jax.tree_util.register_pytree_with_keys(
    DropoutCarry,
    lambda carry: ([(jax.tree_util.SequenceKey(i), part) for i, part in enumerate(carry)], None),
    lambda _, parts: DropoutCarry(*parts),
)


def begin(cell, key, names, batch_shape):
    """The carry of the first step."""
    if key is None:
        return DropoutCarry(cell, None, None)
    # Every leaf has the batch's axes: along them Flax takes the last carry of sequences of several lengths.
    keys = {name: jnp.broadcast_to(fold_in(as_typed_key(key), name), batch_shape) for name in names}
    return DropoutCarry(cell, keys, jnp.zeros(batch_shape, jnp.int32))


def advance(carry, cell):
    """The carry of the next step."""
    return carry._replace(cell=cell, step=None if carry.step is None else carry.step + 1)


def mask_key(carry, name, fresh):
    """The key of one mask: the same at each step, or of this step only."""
    if carry.keys is None:
        return None
    if not carry.step.size:
        return jax.random.key(0)  # any key does for an empty batch
    # By their data, since indexing keys in a loop counts as a use of them.
    data = jax.random.key_data(carry.keys[name])
    key = jax.random.wrap_key_data(data.reshape(-1, data.shape[-1])[0], impl=jax.random.key_impl(carry.keys[name]))
    # The largest: the carry of sequences of several lengths holds the last valid step of each.
    return fold_in(key, carry.step.max()) if fresh else key


def check_carry(wrapper, carry, names=()):
    """Raise a TypeError unless `carry` is one that `wrapper` made."""
    if not isinstance(carry, DropoutCarry) or (carry.keys is not None and not carry.keys.keys() >= set(names)):
        raise TypeError(
            f"carry is a {type(carry).__name__} that {wrapper} did not make, but its carry holds the keys of its masks "
            "beside the wrapped cell's carry: begin with the one of its own initialize_carry, and give that another "
            "state with carry._replace(cell=state)."
        )


def part_names(state):
    """A name for each part of a state, in its order."""
    return [f"part{i}" for i in range(len(jax.tree.leaves(state)))]


def innermost(carry):
    """The state itself, below the carries of any wrappers."""
    return innermost(carry.cell) if isinstance(carry, DropoutCarry) else carry


def zone(cell, carry, new, output, rates, deterministic):
    """Zoneout between the state in `carry` and that in `new`: (new with the mixed state, its output)."""
    previous = jax.tree.leaves(innermost(carry))
    parts, tree = jax.tree.flatten(innermost(new))
    which = [i for i, part in enumerate(parts) if part is output]
    while type(cell).__module__.startswith("jdrop."):  # a wrapper; a cell of the user's may project what is in it
        cell = cell.cell
    if not which and type(cell).__module__.startswith("flax."):  # jitted by itself, as in Flax's tables of models
        which = [len(parts) - 1]
    if not which:
        raise ValueError(
            "the output of Zoneout's cell is none of the parts of its new carry, so it would tell of the state before "
            "zoneout: wrap a cell that returns its state, project the result outside, and put jit or remat around "
            "Zoneout."
        )
    keys = [mask_key(carry, name, True) for name in part_names(parts)]
    parts = [zoneout(*each, deterministic) for each in zip(keys, parts, previous, rates)]
    return _with_state(new, tree.unflatten(parts)), parts[which[-1]]


def part_rates(rate, state):
    """One rate for each part of a state."""
    parts = len(jax.tree.leaves(state))
    if not isinstance(rate, (tuple, list)):
        return [rate] * parts
    if len(rate) != parts:
        raise ValueError(
            f"rate holds {len(rate)} rates, but the cell's carry has {parts} parts: give one number, or one for each "
            "in the order of the carry, such as (0.5, 0.05) for the (c, h) of an LSTM."
        )
    return list(rate)


def drop_state(key, state, rate, deterministic):
    """Drop h, the last part of a state: (what to call the cell with, what its layers read instead of h or None)."""
    (*memory, h), tree = jax.tree.flatten(state)
    if any(jax.tree_util.treedef_children(part) for part in jax.tree_util.treedef_children(tree)):
        raise TypeError(
            f"the cell's carry is {tree}, which has parts within parts, of which RecurrentDropout can't tell what is "
            "the recurrent state: wrap each of the inner cells by itself."
        )
    dropped = dropout(key, h, rate, deterministic)
    if memory or dropped is h:
        return tree.unflatten([*memory, dropped]), None
    # A copy is an array of its own: the cell's input may be the very array h, and is not what its layers read of h.
    return tree.unflatten([jnp.copy(h)]), dropped


def nested(wrapper, cell):
    """The error of a wrapper around another that it does not go around."""
    return TypeError(
        f"{type(wrapper).__name__} is around a {type(cell).__name__}, but a cell is wrapped by one of each at most, by "
        "zoneout last, which must see the state undropped: write Zoneout(RecurrentDropout(cell, ...), ...)."
    )


def unread(cell):
    """The error of a cell in which no layer was called with the recurrent state."""
    return ValueError(
        f"RecurrentDropout found no layer in {type(cell).__name__} that is called with the recurrent state itself, and "
        "nowhere to drop it: give recurrent_rate=0.0, or a cell of Flax's."
    )


def _with_state(carry, state):
    return carry._replace(cell=_with_state(carry.cell, state)) if isinstance(carry, DropoutCarry) else state
