"""The training state: Flax's, with the run's root key."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from flax.training import train_state

from jdrop._checks import refuse_masked
from jdrop._keys import as_typed_key
from jdrop._types import PyTree


class TrainState(train_state.TrainState):
    """Flax's `TrainState` with the root key of the run and the variables that are not trained.

    Nothing random is stored but the root: step s draws from ``fold_in(key, "dropout", s)``.

    Attributes:
      step: number of updates taken, int.
      apply_fn: the model's apply function, or None: nothing here calls it; not a part of the tree.
      params: trained parameters, a tree of arrays.
      tx: an optax gradient transformation; not a part of the tree.
      opt_state: its state.
      key: the root key of the run, shape ().
      collections: other variables by collection name, such as {"batch_stats": ...}.
    """

    key: jax.Array
    collections: dict[str, Any] = struct.field(default_factory=dict)

    @classmethod
    def create(
        cls,
        *,
        apply_fn: Callable[..., Any] | None = None,
        params: PyTree,
        tx: optax.GradientTransformation,
        key: jax.Array,
        collections: Mapping[str, PyTree] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make the state of step 0.

        Args:
          apply_fn: the model's apply function, for code of yours that reads it from the state.
          params: the parameters to train, a dict of arrays as Flax makes it, or any other tree of arrays; copied.
          tx: an optax gradient transformation.
          key: the root key of the run; a legacy key is wrapped.
          collections: other variables by collection name, {"batch_stats": ...}; they reach the loss by these names.
          **kwargs: fields of a subclass.

        Raises:
          TypeError: no key, no optimizer, or parameters that are no arrays.
          ValueError: an array of keys.

        Example:
          >>> import jax, jax.numpy as jnp, optax, jdrop
          >>> state = jdrop.training.TrainState.create(
          ...     params={"w": jnp.zeros(3)}, tx=optax.adam(1e-3), key=jax.random.key(0))
        """
        if not callable(getattr(tx, "init", None)) or not callable(getattr(tx, "update", None)):
            raise TypeError(
                f"tx is a {type(tx).__name__}, but an optax transformation is needed: write optax.adam(1e-3)."
            )
        refuse_masked("params", params)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
                raise TypeError(
                    f"params has a {type(leaf).__name__} at {jax.tree_util.keystr(path)}, but a tree of arrays, such "
                    "as a dict, is needed: of an Equinox model write eqx.partition(model, eqx.is_inexact_array)[0]."
                )
        fields = {"key": as_typed_key(key), "collections": dict(collections or {}), **kwargs}
        if isinstance(params, Mapping):  # in which Flax may look for parameters in 8 bits
            state = super().create(apply_fn=apply_fn, params=params, tx=tx, **fields)
        else:
            fields |= {"apply_fn": apply_fn, "opt_state": tx.init(params)}
            state = cls(step=0, params=params, tx=tx, **fields)
        # Steps donate their state: without a copy the first one would delete the caller's own arrays.
        return jax.tree.map(jnp.copy, without_weak_types(state.replace(step=jnp.zeros((), jnp.int32))))

    def apply_gradients(self, *, grads: PyTree, extra: Mapping[str, Any] | None = None, **kwargs: Any) -> Self:
        """The state after one update by `tx`.

        Args:
          grads: gradients, a tree like `params`.
          extra: further arguments for an optimizer that takes them, such as the loss as `value`.
          **kwargs: fields to replace.
        """
        full = optax.with_extra_args_support(self.tx)
        tx = optax.GradientTransformation(full.init, functools.partial(full.update, **(extra or {})))
        if isinstance(self.params, Mapping):
            return super(TrainState, self.replace(tx=tx)).apply_gradients(grads=grads, **kwargs).replace(tx=self.tx)
        updates, opt_state = tx.update(grads, self.opt_state, self.params)
        params = optax.apply_updates(self.params, updates)
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state, **kwargs)


def without_weak_types(tree):
    """The leaves of `tree` as arrays of their dtypes, which promotion leaves alone.

    So a step is traced once: its result has the types of its argument, and of a state that was read from a file.
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)
