"""Coming from PyTorch: NNX models look alike, and the loop over a `DataLoader` is `fit`.

``model.train()`` and ``model.eval()`` are set by the loss that jdrop makes, and no optimizer or scheduler is called by
hand. Batches may be tensors or arrays; give `fit` the loader itself:

>>> import jax, numpy as np, optax, jdrop
>>> from flax import nnx
>>> class Net(nnx.Module):
...     def __init__(self, rngs):
...         self.inner, self.outer = nnx.Linear(3, 16, rngs=rngs), nnx.Linear(16, 1, rngs=rngs)
...         self.dropout = jdrop.nnx.Dropout(0.5, rngs=rngs)
...     def __call__(self, x):
...         return self.outer(self.dropout(nnx.relu(self.inner(x))))
>>> def loss_fn(model, batch):
...     return ((model(batch[0]) - batch[1]) ** 2).mean()
>>> model = Net(nnx.Rngs(0))
>>> loader = [(np.ones((4, 3), np.float32), np.ones((4, 1), np.float32))] * 5  # or a DataLoader
>>> state = jdrop.training.TrainState.create(
...     **jdrop.nnx.train_parts(model), tx=optax.sgd(0.1), key=jax.random.key(0))
>>> step = jdrop.training.make_train_step(jdrop.nnx.model_loss(model, loss_fn))
>>> state, history = jdrop.training.fit(state, step, loader, epochs=2, progress=False)
>>> jdrop.nnx.update_model(model, state)  # the trained model, in the place of the first

``nn.Dropout2d`` and its like are `jdrop.nnx.ChannelDropout`, of channels that come last, ``nn.AlphaDropout`` is
`jdrop.nnx.AlphaDropout`, and timm's ``DropPath`` `jdrop.nnx.DropPath`.

A loader that shuffles draws from PyTorch's own generator, which no checkpoint holds: for runs that resume to the bit
give `fit` the dataset and a `batch_size` in its place, and jdrop orders the examples by the root key.
"""
