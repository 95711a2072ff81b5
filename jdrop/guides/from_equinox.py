"""Coming from Equinox: a subclass, swapped into any model by a map over its tree, and any tree as parameters.

>>> import equinox as eqx, jax, jax.numpy as jnp, optax, jdrop
>>> class Dropout(eqx.nn.Dropout):
...     def __call__(self, x, *, key=None, inference=None):
...         return jdrop.dropout(key, x, self.p, self.inference if inference is None else inference)
>>> def is_dropout(node):
...     return isinstance(node, eqx.nn.Dropout)
>>> def swapped(node):
...     return Dropout(node.p, node.inference) if is_dropout(node) else node
>>> model = eqx.nn.Sequential([eqx.nn.Dropout(0.5), eqx.nn.Linear(3, 2, key=jax.random.key(0))])
>>> model = jax.tree.map(swapped, model, is_leaf=is_dropout)

The arrays of a model are the parameters; what remains of it is closed over:

>>> params, rest = eqx.partition(model, eqx.is_inexact_array)
>>> def predict(params, key, x):
...     return jax.vmap(eqx.combine(params, rest))(x, key=jax.random.split(key, len(x)))
>>> def loss_fn(params, x, key):
...     return (predict(params, key, x) ** 2).mean()
>>> state = jdrop.training.TrainState.create(params=params, tx=optax.sgd(0.1), key=jax.random.key(1))
>>> state, _ = jdrop.training.make_train_step(loss_fn)(state, jnp.ones((4, 3)))
>>> sample = jax.tree_util.Partial(predict, state.params)
>>> jdrop.mc_dropout(sample, jax.random.key(2), jnp.ones((4, 3))).std.shape
(4, 2)

Weights of Equinox and PyTorch are (out, in): write ``jdrop.max_norm(3.0, axes=1)``.
"""
