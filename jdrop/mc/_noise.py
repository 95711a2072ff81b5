"""The noise of the data around a model's outputs."""

import jax.numpy as jnp

from jdrop.mc._checks import as_finite, as_positive


def as_noise(tau, log_variance, shape=None):
    """Precisions of the noise and their logarithms, with a first axis of samples, for outputs of `shape`."""
    if (tau is None) == (log_variance is None):
        raise TypeError("the noise needs one description: write either tau=1.0 or log_variance=log_variance.")
    if tau is None:
        log_variance = as_finite("log_variance", log_variance, "num_samples", "...")
        if shape not in (None, log_variance.shape):
            raise ValueError(
                f"log_variance has shape {log_variance.shape}, but outputs has {shape}: give one for each output."
            )
        return jnp.exp(-log_variance), -log_variance
    tau = as_positive("tau", tau, "tau=1.0")
    if shape is not None and not (
        tau.ndim < len(shape) and all(a in (1, b) for a, b in zip(tau.shape[::-1], shape[::-1]))
    ):
        raise ValueError(
            f"tau has shape {tau.shape}, which does not broadcast to the {shape[1:]} of one sample: write tau=1.0."
        )
    return tau[None], jnp.log(tau)[None]
