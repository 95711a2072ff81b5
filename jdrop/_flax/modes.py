"""The arguments that put a model of any framework into evaluation mode."""

import inspect

import jax
import numpy as np

_EVALUATION = {"train": False, "training": False, "is_training": False, "deterministic": True}


def evaluation_arguments(call, given):
    """(settings, arrays): the arguments `given` for `call`, and the modes of evaluation that it has a name for.

    The settings are a hashable tuple of (name, value), the arrays a dict.
    """
    parameters = inspect.signature(call).parameters
    given = {name: mode for name, mode in _EVALUATION.items() if name in parameters} | given
    arrays = {name: value for name, value in given.items() if isinstance(value, (jax.Array, np.ndarray))}
    return tuple((name, value) for name, value in given.items() if name not in arrays), arrays
