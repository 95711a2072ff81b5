"""One jitted training step, and its evaluation."""

import jax

from jdrop.keys import fold_in


def make_train_step(loss_fn):
    """Make the jitted function `(state, batch) -> (state, metrics)` of one gradient update.

    ``params <- params + tx(d loss / d params)``, with the key ``fold_in(state.key, "dropout", state.step)``.

    Args:
      loss_fn: `(params, batch, key) -> (loss, metrics)`, a scalar and a dict of arrays. Where the state carries other
        collections it gets them by name, `(params, batch, key, batch_stats=...)`, and may return their update as
        a third value, `{"batch_stats": ...}`.

    Returns:
      The step. It donates the state, whose arrays must not be used again; its metrics hold "loss" and those of
      `loss_fn`.

    Raises:
      TypeError: `loss_fn` does not return (loss, metrics) or (loss, metrics, collections).
      ValueError: the update names a collection that the state does not carry.

    Example:
      >>> import jax, jax.numpy as jnp, optax, jdrop
      >>> def loss_fn(params, batch, key):
      ...     return ((jdrop.dropout(key, batch, 0.5) @ params["w"]) ** 2).mean(), {}
      >>> state = jdrop.training.TrainState.create(
      ...     apply_fn=None, params={"w": jnp.ones(3)}, tx=optax.sgd(0.1), key=jax.random.key(0))
      >>> state, metrics = jdrop.training.make_train_step(loss_fn)(state, jnp.ones((4, 3)))
      >>> int(state.step)
      1
    """

    def step(state, batch):
        key = fold_in(state.key, "dropout", state.step)

        def loss_of(params):
            loss, metrics, collections = _call(loss_fn, state, params, batch, key)
            return loss, (metrics, collections)

        (loss, (metrics, collections)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        state = state.apply_gradients(grads=gradients, collections=collections)
        return state, {"loss": loss, **metrics}

    return jax.jit(step, donate_argnums=0)


def make_eval_step(loss_fn):
    """Make the jitted function `(state, batch) -> metrics`, in which nothing is random.

    Args:
      loss_fn: that of `make_train_step`; it is called with ``key=None`` and must then be deterministic. An update of
        collections that it returns is not used.

    Returns:
      The evaluation; its metrics hold "loss" and those of `loss_fn`.

    Raises:
      TypeError: `loss_fn` does not return (loss, metrics) or (loss, metrics, collections).

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> def loss_fn(params, batch, key):
      ...     return ((jdrop.dropout(key, batch, 0.5, deterministic=key is None) @ params["w"]) ** 2).mean(), {}
      >>> evaluate = jdrop.training.make_eval_step(loss_fn)
    """

    def evaluate(state, batch):
        loss, metrics, _ = _call(loss_fn, state, state.params, batch, None)
        return {"loss": loss, **metrics}

    return jax.jit(evaluate)


def _call(loss_fn, state, params, batch, key):
    result = loss_fn(params, batch, key, **state.collections)
    if not isinstance(result, tuple) or len(result) not in (2, 3):
        came = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise TypeError(
            f"loss_fn returned {came}, but (loss, metrics) or (loss, metrics, collections) is needed: "
            "write return loss, {}."
        )
    loss, metrics, *update = result
    if not isinstance(metrics, dict) or "loss" in metrics:
        raise TypeError(
            f"loss_fn returned the metrics {metrics!r}, but a dict without the name 'loss' is needed: that is the loss "
            "itself. Write return loss, {}."
        )
    update = dict(update[0]) if update else {}
    unknown = sorted(set(update) - set(state.collections))
    if unknown:
        raise ValueError(
            f"loss_fn returned the collections {unknown}, but the state carries {sorted(state.collections)}: pass "
            "them to TrainState.create(collections=...)."
        )
    return loss, metrics, {**state.collections, **update}
