"""Which examples a step sees: of arrays a function of the root key and the step's number."""

import functools
import hashlib

import jax
import numpy as np
from jax import lax

from jdrop._checks import count_examples, refuse_masked, to_array
from jdrop._keys import fold_in


def is_array(leaf) -> bool:
    """Whether a leaf holds examples along its first axis: an array of any library, or of a file."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


class Examples:
    """Examples that are taken by their numbers: a tree of arrays, or an object with a length and an index.

    An epoch visits them in an order that follows from the root key, in whole batches.
    """

    def __init__(self, data, is_arrays, batch_size):
        refuse_masked("data", data)
        self.is_arrays = is_arrays
        self.examples = count_examples("data", data) if is_arrays else len(data)
        if batch_size > self.examples:
            raise ValueError(
                f"batch_size is {batch_size}, but there are only {self.examples} examples in data: write "
                f"batch_size={self.examples} or less."
            )
        self.data = jax.tree.map(host_array, data) if is_arrays else data
        self.batch_size, self.steps = batch_size, self.examples // batch_size

    def begin(self, run, sharding):
        """Serve a run, whose root key orders the examples."""
        self.root, self.stack, self.sharding = run.root(), run.stack, sharding

        @functools.lru_cache(maxsize=1)
        def rows(epoch):
            """The examples of each step of an epoch, shape (steps, *stack, batch_size)."""
            order = _epoch_order(self.root, epoch, self.examples)[..., : self.steps * self.batch_size]
            return np.moveaxis(order.reshape(*self.stack, self.steps, self.batch_size), -2, 0)

        self.rows = rows

    def batch(self, step):
        rows = self.rows(step // self.steps)[step % self.steps]
        if self.is_arrays:
            return gather(self.data, rows, self.sharding)
        examples = [self.data[int(i)] for i in rows.ravel()]

        def stacked(*leaves):
            stack = np.stack([host_array(leaf) for leaf in leaves])
            return as_sent(stack.reshape(*rows.shape, *stack.shape[1:]))

        return placed(jax.tree.map(stacked, *examples), self.sharding)

    @functools.cached_property
    def fingerprint(self):
        """What tells the data from others, as JSON has it; read once, since it takes rows of all arrays."""
        return [_fingerprint(leaf) for leaf in jax.tree.leaves(self.data)] if self.is_arrays else ["examples"]

    def state(self):
        return None

    def restore(self, state, step):
        pass


def _epoch_order(root, epoch, examples):
    """The order of an epoch's examples, shape (examples,), or one for each of a stack of keys."""
    return np.asarray(_order(root, np.int32(epoch), examples))


@functools.partial(jax.jit, static_argnums=2)
def _order(root, epoch, examples):
    # Compiled once for all epochs: `lax.map` alone compiles anew for each number that it closes over.
    def order(key):
        return jax.random.permutation(fold_in(key, "shuffle", epoch), examples)

    return order(root) if root.shape == () else lax.map(order, root)


def host_array(leaf):
    """An array on the host, with nothing copied of one that is there."""
    return np.asarray(to_array("data", leaf))


def as_sent(array):
    """A batch in the byte order of the machine, whose integers JAX can hold."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    if array.size and narrow != array.dtype and np.issubdtype(narrow, np.integer):
        limits = np.iinfo(narrow)
        if array.min() < limits.min or array.max() > limits.max:
            raise ValueError(
                f"data holds the integers {array.min()} to {array.max()}, but JAX has {narrow} here: number them from "
                "0, or switch on jax_enable_x64."
            )
    return array


def gather(data, rows, sharding):
    """The batch of these rows; with a sharding each process reads only the rows of its own devices."""
    if sharding is None:
        return jax.tree.map(lambda array: as_sent(array[rows]), data)

    def place(sharding, array):
        read = {}  # once for all devices that have parts of the same rows

        def part(index):
            of_rows, rest = index[: rows.ndim], index[rows.ndim :]
            if str(of_rows) not in read:
                read[str(of_rows)] = as_sent(array[rows[of_rows]])
            return read[str(of_rows)][(slice(None),) * rows.ndim + rest]

        return jax.make_array_from_callback(rows.shape + array.shape[1:], sharding, part)

    return jax.tree.map(place, jax.tree.broadcast(sharding, data), data)


def placed(batch, sharding):
    """A batch that every process holds, laid out over the devices."""
    if sharding is None:
        return batch

    def place(sharding, array):
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, jax.tree.broadcast(sharding, batch), batch)


def _fingerprint(array):
    """What tells data apart at the cost of a few rows: [shape, dtype, a hash of 32 rows]."""
    rows = np.unique(np.linspace(0, len(array) - 1, 32).astype(int))
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array[row]).tobytes() for row in rows)).hexdigest()
    return [list(array.shape), str(array.dtype), digest[:16]]
