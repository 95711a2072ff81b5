"""Why is my run not reproducible? Masks, keys, the order of data and resumed runs are equal to the bit, if these are:

* The root key and its kind: ``jax.random.key(0, impl="threefry2x32")``. The default kind is a setting of JAX's.
* The version of jdrop's stream, `jdrop.masks.STREAM_VERSION`, and the rates, as JAX rounds them.
* The path of each key. Step s draws from ``fold_in(root, "dropout", s)``; a layer that is added before others in a
  Linen model with unnamed layers renames those after it, and an NNX stream counts its calls.
* The data: their order follows from the root key and the batch size. A loader that shuffles has an order of its own.
* The program: another processor, another version of JAX, other shapes of batches, `accumulate`, chunks or meshes round
  products of matrices otherwise. Masks stay; numbers then differ in the last digits, and after many steps in more.
* On a GPU, sums that race: ``XLA_FLAGS=--xla_gpu_deterministic_ops=true``. And products in less than float32:
  ``jax.config.update("jax_default_matmul_precision", "highest")``.

Two runs can be compared where they draw, before they are compared where they end:

>>> import jax, jax.numpy as jnp, jdrop
>>> root = jax.random.key(0, impl="threefry2x32")
>>> keys = [jdrop.fold_in(root, "dropout", step) for step in range(2)]
>>> [int(jdrop.keep_mask(key, (1000,), 0.5).sum()) for key in keys]
[517, 486]
"""
