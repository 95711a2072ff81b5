"""A predictor as a file: `jax.export` with a batch of any size; whoever loads it needs JAX alone.

JAX writes the file with `flatbuffers`, to be installed beside it. Keys are given as their data, since a file has no
typed keys. Masks of the loaded program are those of jdrop to the bit.

>>> import jax, jax.numpy as jnp, numpy as np, jdrop
>>> from jax import export
>>> def predict(key, x):
...     return jdrop.dropout(key, x, 0.5) @ jnp.ones((3, 2))
>>> def run(key_data, x):
...     answer = jdrop.mc_dropout(predict, jax.random.wrap_key_data(key_data, impl="threefry2x32"), x, 20)
...     return answer.mean, answer.std
>>> x = jax.ShapeDtypeStruct(export.symbolic_shape("b, 3"), jnp.float32)
>>> content = export.export(jax.jit(run))(jax.ShapeDtypeStruct((2,), jnp.uint32), x).serialize()
>>> loaded = export.deserialize(content)
>>> mean, std = loaded.call(jax.random.key_data(jax.random.key(0)), np.ones((5, 3), np.float32))
>>> mean.shape
(5, 2)

With `orbax-export` and TensorFlow the same is a SavedModel, parameters apart from the program::

    def run(params, inputs):
        key = jax.random.wrap_key_data(inputs["key"], impl="threefry2x32")
        answer = jdrop.mc_dropout(lambda key, x: apply(params, key, x), key, inputs["x"], 20)
        return {"mean": answer.mean, "std": answer.std}

    module = orbax.export.JaxModule(params, run, input_polymorphic_shape={"key": "2", "x": "b, 3"})
    inputs = {"key": tf.TensorSpec([2], tf.uint32), "x": tf.TensorSpec([None, 3], tf.float32)}
    signature = orbax.export.ServingConfig("serving_default", input_signature=[inputs])
    orbax.export.ExportManager(module, [signature]).save(folder)

A TPU or GPU beside the CPU: ``export.export(jax.jit(run), platforms=["cpu", "cuda", "tpu"])``.
"""
