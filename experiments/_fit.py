"""Training on one batch, step after step."""

import jax
import optax

import jdrop


def fit_steps(model, loss_fn, key, x, steps):
    """Parameters of a Linen model after steps of Adam on `loss_fn(params, None, key)`; `x` shows the input's shape."""
    state = jdrop.training.TrainState.create(
        apply_fn=model.apply,
        params=model.init(jdrop.fold_in(key, "init"), x[:1], True)["params"],
        tx=optax.adam(3e-3),
        key=key,
    )
    step = jdrop.training.make_train_step(loss_fn)
    return jax.lax.scan(lambda state, _: (step(state, None)[0], None), state, length=steps)[0].params
