"""The minimum of a likelihood of one number."""

import jax
import jax.numpy as jnp
import optax

from jdrop._checks import is_concrete

_STEPS = 100  # of L-BFGS; it needs about ten


def log_mean_exp(x):
    return jax.nn.logsumexp(x, 0) - jnp.log(jnp.asarray(len(x), x.dtype))


def minimum(loss, dtype):
    """Where a smooth function of one number has the minimum that L-BFGS finds from 0; NaN if it finds none."""
    solver, evaluate = optax.lbfgs(), optax.value_and_grad_from_state(loss)
    tolerance = 8 * float(jnp.finfo(dtype).eps)

    def step(carry):
        x, state, _, count = carry
        value, slope = evaluate(x, state=state)
        update, state = solver.update(slope, state, x, value=value, grad=slope, value_fn=loss)
        return x + update, state, optax.tree.get(state, "grad"), count + 1

    def unfinished(carry):
        return (carry[3] < _STEPS) & (jnp.abs(carry[2]) > tolerance)

    start = jnp.zeros((), dtype)
    x = jax.lax.while_loop(unfinished, step, (start, solver.init(start), jnp.full_like(start, jnp.inf), 0))[0]
    slope = jax.grad(loss)  # a function without a minimum is flat in the end, or falls on
    return jnp.where((slope(x - 0.01) < 0) & (slope(x + 0.01) > 0), x, jnp.nan)


def fitted(name, value, question):
    if is_concrete(value) and not jnp.isfinite(value):
        raise ValueError(f"the likelihood has no maximum at a finite {name} above 0: {question}")
    return value
