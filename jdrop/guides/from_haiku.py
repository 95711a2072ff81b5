"""Coming from Haiku: ``hk.dropout(rng, rate, x)`` is ``jdrop.dropout(key, x, rate)``, the rate behind the array.

>>> import haiku as hk, jax, jax.numpy as jnp, optax, jdrop
>>> def forward(x, train):
...     x = jdrop.dropout(hk.next_rng_key() if train else None, x, 0.5, deterministic=not train)
...     return hk.Linear(2)(x)
>>> model = hk.transform(forward)
>>> def loss_fn(params, x, key):
...     return (model.apply(params, key, x, True) ** 2).mean()
>>> params = model.init(jax.random.key(0), jnp.ones((4, 3)), False)
>>> state = jdrop.training.TrainState.create(params=params, tx=optax.sgd(0.1), key=jax.random.key(1))
>>> state, _ = jdrop.training.make_train_step(loss_fn)(state, jnp.ones((4, 3)))
>>> def predict(key, x):
...     return model.apply(state.params, key, x, True)
>>> jdrop.mc_dropout(predict, jax.random.key(2), jnp.ones((4, 3))).std.shape
(4, 2)

Swapped arguments are an error that says so:

>>> jdrop.dropout(jax.random.key(0), 0.5, jnp.ones(3))
Traceback (most recent call last):
ValueError: x is one number and rate has shape (3,), but the order of the arguments is (key, x, rate): ...
"""
