"""Under each of JAX's own guards every public function does what it does without; junk is refused by its name."""

import contextlib
import gc
import itertools
import warnings

import calls
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from cases import key
from tiers import some

import jdrop
from experiments.api.main import modules, names


@contextlib.contextmanager
def checks():
    """Those that raise and change no number; with strict promotion, which all tests have."""
    with jax.debug_nans(True), jax.debug_key_reuse(True), jax.numpy_rank_promotion("raise"):
        yield


@contextlib.contextmanager
def leaks_in_64_bits():
    """With standard promotion: in 64 bits optax's L-BFGS mixes integers of two sizes."""
    gc.freeze()  # at a trace that is alive still JAX collects garbage, and so not of all that the process has
    try:
        with jax.checking_leaks(), jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
            yield
    finally:
        gc.unfreeze()


GUARDS = {"checks": checks, "leaks, x64": leaks_in_64_bits, "disable_jit": lambda: jax.disable_jit(True)}


def called(name, function, arguments):
    result = function(**arguments)
    if name.endswith("predictor"):
        result = result(key(), calls.X)
    if name == "max_norm":
        params = {"kernel": calls.KERNEL}
        result = result.update(params, result.init(params), params)
    plt.close("all")
    return result


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS)
def test_every_public_call_runs_under_jax_s_guards(guard):
    with GUARDS[guard]():
        for name, (function, arguments) in calls.calls().items():
            called(name, function, arguments)


class Thing:
    pass


JUNK = [None, "yes", Thing(), 3 + 4j, float("nan"), 10**400, ["a"], np.array(["a"]), key()]
JUNK += [np.ma.array([1.0, 2.0], mask=[0, 1])]


@pytest.mark.slow
def test_junk_is_accepted_or_refused_by_its_name():
    """In each argument of each public function: a TypeError or a ValueError that names it, or none."""
    for name, (function, arguments) in calls.calls().items():
        for argument in arguments:
            for junk in JUNK:
                given = {**arguments, argument: junk}
                if name == "fit" and argument != "state":
                    given["state"] = calls.state()
                if argument == "x" and (isinstance(junk, (complex, float)) or junk is None):
                    continue  # a good input of another predict
                said = argument
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        called(name, function, given)
                except (TypeError, ValueError) as error:
                    said = str(error).replace(" ", "_")
                assert argument in said, (name, argument, junk, said)


@some("with_jax_s", [True, False], 0)
def test_every_public_draw_consumes_its_key(with_jax_s):
    """Before and after one of JAX's own, from which it follows for two of jdrop's."""
    x = jnp.ones((4, 4))
    draws = {
        "dropout": lambda k: jdrop.dropout(k, x, 0.5),
        "keep_mask": lambda k: jdrop.keep_mask(k, (4, 4), 0.5),
        "dot_product_attention": lambda k: jdrop.dot_product_attention(k, x[:, None], x[:, None], x[:, None], 0.5),
        "zoneout": lambda k: jdrop.zoneout(k, x, x + 1, 0.5),
        "gaussian_noise": lambda k: jdrop.gaussian_noise(k, x, 0.5),
        "variational_dropout": lambda k: jdrop.variational_dropout(k, x, x, x),
        "variational_mask": lambda k: jdrop.variational_mask(k, (4,), 0.5),
        "random": lambda k: jdrop.mc.acquisition.random(k, 3),
        "normal": lambda k: jax.random.normal(k, (3,)),
    }
    with jax.debug_key_reuse(True):
        for draw in draws.values():
            jax.jit(draw)(key(1))
        for first, second in itertools.product(draws, repeat=2):
            if ("normal" in (first, second)) == with_jax_s:
                with pytest.raises(jax.errors.KeyReuseError):
                    jax.jit(lambda k, a=draws[first], b=draws[second]: (a(k), b(k)))(key(1))
        jax.jit(lambda k: jax.vmap(lambda r: jdrop.keep_mask(k, (4,), r))(jnp.linspace(0, 1, 3)))(key(3))


@pytest.mark.slow
def test_the_backward_pass_is_no_second_use_of_a_key():
    x = jnp.ones((4, 4))
    heads = x[:, None]
    with jax.debug_key_reuse(True):
        for name in ("dropout", "gaussian", "zoneout", "attention"):
            one = {
                "dropout": lambda x, k: jdrop.dropout(k, x, 0.5),
                "gaussian": lambda x, k: jdrop.gaussian_dropout(k, x, 0.5),
                "zoneout": lambda x, k: jdrop.zoneout(k, x, x, 0.5),
                "attention": lambda x, k: jdrop.dot_product_attention(k, x[:, None], heads, heads, 0.5, block_size=2),
            }
            jax.jit(jax.grad(lambda x, k, f=one[name]: f(x, k).sum()))(x, key(2))


@pytest.mark.slow
def test_there_is_a_call_of_every_public_function():
    assert set(calls.uncalled(modules(), names)) <= {"jdrop.nnx.update_model", "jdrop.training.tensorboard"}
