"""Coming from Flax: `jdrop.linen.Dropout` and `jdrop.nnx.Dropout` are subclasses of Flax's layers and take their place.

Parameters, names and random streams stay as they are; masks are others. Change the layer where the model is written,
hand it to a model that takes a class, or make a subclass with settings of your own:

>>> import functools, flax.linen as nn, jax, jax.numpy as jnp, jdrop
>>> class Net(nn.Module):
...     dropout: type = nn.Dropout
...     @nn.compact
...     def __call__(self, x, train=False):
...         return nn.Dense(2)(self.dropout(0.5)(x, deterministic=not train))
>>> class Shared(jdrop.linen.Dropout):  # one mask for all rows
...     broadcast_dims: tuple = (0,)
>>> x, variables = jnp.ones((4, 3)), Net().init(jax.random.key(0), jnp.ones((4, 3)))
>>> for layer in (jdrop.linen.Dropout, Shared, functools.partial(jdrop.linen.Dropout, save="mask")):
...     y = Net(layer).apply(variables, x, True, rngs={"dropout": jax.random.key(1)})

A model of another author gains without an edit: ``jdrop.accelerate(train_step)`` has all of its dropout, attention's
too, drawn by jdrop, and `predictor` finds Flax's layers:

>>> predict = jdrop.linen.predictor(Net(), variables)
>>> jdrop.mc_dropout(predict, jax.random.key(2), x).std.shape
(4, 2)

Other than Flax's, a bad rate is an error, and `apply` without the "dropout" stream is one also where it has "params".
"""
