"""Dropout of bfloat16 arrays on a GPU, beside a device copy."""

import importlib.util

import jax
import jax.numpy as jnp

from experiments import _peers
from experiments._figures import at_most, record
from experiments._timing import Case, measure

RATE = 0.1
SHAPES = ((8192, 8192), (32, 2048, 4096))
KEYS = ("threefry2x32", "threefry4x32", "philox4x32")
COPY = at_most(1.15, 1.15)


def gpu(quick):
    """Forward and backward passes, beside a device copy; calls are queued, which keeps the GPU busy."""
    timing = {"queued": 2, "blocks": 1, "seconds": 0.001} if quick else {"queued": 20}
    for shape in ((2, 32, 64),) if quick else SHAPES:
        ours = {
            (implementation, impl): passes(_peers.dropout(RATE, implementation=implementation), impl, shape)
            for implementation in ("xla", "pallas")
            for impl in KEYS
        }
        theirs = {
            ("flax.linen", impl): passes(_peers.flax_linen(RATE), impl, shape) for impl in ("threefry2x32", "rbg")
        }
        if torch := torch_passes(shape):
            theirs["torch", "its own"] = torch
        else:
            print("torch sees no GPU here: it is not measured")
            yield record("GPU: times faster than torch", "torch sees no GPU", shape=shape)
        for direction in ("forward", "backward"):
            cases = {name: case[direction] for name, case in (ours | theirs).items()}
            cases["copy"] = Case(jax.jit(jnp.copy), (jnp.ones(shape, jnp.bfloat16),))
            times = measure(cases, **timing)
            print(f"device copy of bfloat16 {shape}: {1000 * times['copy']:.4g} ms")
            for implementation, impl in ours:
                seconds = times[implementation, impl]
                about = {"shape": shape, "dtype": "bfloat16", "rate": RATE, "key": impl, "mode": "jitted"}
                about |= {"ours": (f"jdrop.dropout, {implementation}", seconds)}
                name = f"GPU {direction}, {implementation}"
                copy = times["copy"]
                yield record(f"{name}: times a device copy", seconds / copy, COPY, **about, theirs=("copy", copy))
                for peer, peer_key in theirs:
                    side = (f"{peer}, {peer_key} key", times[peer, peer_key])
                    yield record(f"{name}: times faster than {side[0]}", side[1] / seconds, **about, theirs=side)


def passes(function, impl, shape) -> dict:
    """The forward pass, and the backward pass alone, from what the forward pass kept."""
    key, x = jax.random.key(0, impl=impl), jnp.ones(shape, jnp.bfloat16)
    pullback = jax.jit(lambda key, x: jax.vjp(lambda x: function(key, x), x)[1])(key, x)
    return {
        "forward": Case(jax.jit(function), (key, x)),
        "backward": Case(jax.jit(lambda pullback, g: pullback(g)), (pullback, x)),
    }


def torch_passes(shape) -> dict | None:
    """The same of PyTorch, or None where it is not installed or sees no GPU."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    dropout = _peers.torch(RATE)
    x = torch.ones(shape, dtype=torch.bfloat16, device="cuda")
    leaf = x.clone().requires_grad_()
    y = dropout(None, leaf)

    def backward():
        return torch.autograd.grad(y, leaf, x, retain_graph=True)

    def wait(result):
        torch.cuda.synchronize()

    return {"forward": Case(dropout, (None, x), wait), "backward": Case(backward, (), wait)}
