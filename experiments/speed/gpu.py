"""Dropout on a GPU, beside a device copy, Flax and PyTorch; its masks, a transformer block, memory, Monte Carlo.

The figures that matter most come first, and `speed` writes its table after each of them. Everywhere a figure says what
device gave it: on a CPU, where `--quick` runs it in small, none is a GPU's.
"""

import hashlib
import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jdrop
from experiments.common.ratios import at_least, at_most, record
from experiments.common.timing import Case, measure
from experiments.common.transformer import LAYERS, Block, Net
from experiments.speed import peers
from experiments.speed.steps import train_step

RATE = 0.1
SHAPES = ((8192, 8192), (32, 2048, 4096))
SIZES = tuple(2**n for n in range(16, 29, 4))
KEYS = ("threefry2x32", "philox4x32", "threefry4x32")
FLAX_KEYS = ("threefry2x32", "philox4x32", "rbg")
MASKS = ((4096, 1024), (8, 197, 768), (5, 1025), (100_003,))
COPY = at_most(1.15, 1.15)


def gpu(quick):
    """All figures, the most important first; `quick` in small, wherever JAX runs."""
    device = jax.devices()[0].device_kind
    for section in (masks, arrays, block, memory, monte_carlo, lengths):
        for row in section(quick):
            yield row | {"what": f"{row['what']} [{device}]"}


def timing(quick):
    return {"queued": 2, "blocks": 1, "seconds": 0.001} if quick else {"queued": 20, "blocks": 5}


def masks(quick):
    """Whether the default's masks are the CPU's, by their digests."""
    for shape in ((64, 40),) if quick else MASKS:
        for impl in KEYS:
            key, x = jax.random.key(7, impl=impl), jnp.ones(shape, jnp.bfloat16)
            here = _digest(jax.jit(lambda key, x: jdrop.dropout(key, x, 0.3) != 0)(key, x))
            with jax.default_device(jax.devices("cpu")[0]):
                there = _digest(jdrop.keep_mask(jax.random.key(7, impl=impl), shape, 0.3))
            yield record("masks that are the CPU's", float(here == there), at_least(1), shape=shape, key=impl)


def _digest(mask):
    return hashlib.sha256(np.packbits(np.asarray(mask)).tobytes()).hexdigest()


def arrays(quick):
    """Forward and backward passes of large arrays; calls are queued, which keeps the GPU busy."""
    for shape in ((2, 32, 64),) if quick else SHAPES:
        yield from _beside_copy(shape, KEYS[:1] if quick else KEYS, quick)


def lengths(quick):
    """One axis, from 2^16 elements to 2^28."""
    for size in SIZES[:1] if quick else SIZES:
        yield from _beside_copy((size // 256, 256), KEYS[:1], quick)


def _beside_copy(shape, keys, quick):
    ours = {
        (name, impl): passes(peers.dropout(RATE, implementation=implementation), impl, shape)
        for name, implementation in (("default", None), ("xla", "xla"))
        for impl in keys
    }
    theirs = {("flax.linen", impl): passes(peers.flax_linen(RATE), impl, shape) for impl in FLAX_KEYS}
    if torch := torch_passes(shape):
        theirs["torch", "its own"] = torch
    for direction in ("forward", "backward"):
        cases = {name: case[direction] for name, case in (ours | theirs).items()}
        cases["copy"] = Case(jax.jit(jnp.copy), (jnp.ones(shape, jnp.bfloat16),))
        times = measure(cases, **timing(quick))
        copy = times["copy"]
        for name, impl in ours:
            seconds = times[name, impl]
            about = {"shape": shape, "dtype": "bfloat16", "rate": RATE, "key": impl, "mode": "jitted"}
            about |= {"ours": (f"jdrop.dropout, {name}", seconds)}
            what, target = f"{direction}, {name}", COPY if name == "default" else None
            yield record(f"{what}: times a device copy", seconds / copy, target, **about, theirs=("copy", copy))
            for peer, peer_key in theirs:
                side = (f"{peer}, {peer_key} key", times[peer, peer_key])
                yield record(f"{what}: times faster than {side[0]}", side[1] / seconds, **about, theirs=side)


def block(quick):
    """What three dropouts add to a train step of a transformer block in bfloat16."""
    shape = (2, 16, 32) if quick else (16, 512, 1024)
    x = jnp.ones(shape, jnp.bfloat16)
    params = jax.tree.map(lambda leaf: leaf.astype(x.dtype), jax.jit(Block(None).init)(jax.random.key(0), x))
    cases = {}
    for name, layer in LAYERS.items():
        step, arguments = train_step(Block(layer), params, x)
        cases[name] = Case(jax.jit(step), arguments)
    times = measure(cases, **timing(quick))
    about = {"shape": shape, "dtype": "bfloat16", "rate": RATE, "key": "threefry2x32", "mode": "jitted"}
    for name in list(LAYERS)[1:]:
        sides = {"ours": (name, times[name]), "theirs": ("no dropout", times["none"])}
        yield record("transformer block: times the step without dropout", times[name] / times["none"], **about, **sides)


class Stack(nn.Module):
    """Six rematerialised blocks."""

    layer: type | None

    @nn.compact
    def __call__(self, x):
        for _ in range(6):
            x = nn.remat(Block)(self.layer)(x)
        return x


def memory(quick):
    """Device memory of a step of six rematerialised blocks (jax-ml/jax#17982)."""
    shape = (2, 16, 32) if quick else (16, 512, 1024)
    x = jnp.ones(shape, jnp.bfloat16)
    params = jax.jit(Stack(None).init)(jax.random.key(0), x)
    scratch = {}
    for name, layer in LAYERS.items():
        step, arguments = train_step(Stack(layer), params, x)
        scratch[name] = jax.jit(step).lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    for name in list(LAYERS)[1:]:
        about = {"shape": shape, "dtype": "bfloat16", "rate": RATE, "key": "threefry2x32", "mode": name}
        yield record(
            "six rematerialised blocks: memory, times that without dropout", scratch[name] / scratch["none"], **about
        )


def monte_carlo(quick):
    """100 samples of 784-1024-1024-10, beside a plain vmap over keys."""
    count, batch = (4, 8) if quick else (100, 256)
    x, key, model = jnp.ones((batch, 784)), jax.random.key(0), Net(64 if quick else 1024)
    variables = model.init(key, x)
    predict = jdrop.linen.predictor(model, variables)
    plain = jax.jit(lambda key, x: jax.vmap(lambda i: predict(jdrop.fold_in(key, i), x))(jnp.arange(count)))
    cases = {
        "vmap over keys": Case(plain, (key, x)),
        "mc_dropout": Case(lambda: jdrop.mc_dropout(predict, key, x, count)),
        "samples": Case(lambda: jdrop.mc.samples(predict, key, x, count)),
    }
    times = measure(cases, **timing(quick))
    lowest = ("vmap over keys", times["vmap over keys"])
    for name in ("mc_dropout", "samples"):
        about = {"shape": x.shape, "dtype": "float32", "key": "threefry2x32", "mode": f"{count} samples"}
        sides = {"ours": (name, times[name]), "theirs": lowest}
        yield record("Monte Carlo: times a vmap over keys", times[name] / lowest[1], **about, **sides)


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
    dropout = peers.torch(RATE)
    x = torch.ones(shape, dtype=torch.bfloat16, device="cuda")
    leaf = x.clone().requires_grad_()
    y = dropout(None, leaf)

    def backward():
        return torch.autograd.grad(y, leaf, x, retain_graph=True)

    def wait(result):
        torch.cuda.synchronize()

    return {"forward": Case(dropout, (None, x), wait), "backward": Case(backward, (), wait)}
