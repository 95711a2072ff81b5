"""The comparison and its report."""

import ast
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.ratios import at_least, at_most, machine, record, summary
from experiments.common.tables import save_table
from experiments.common.timing import Case, measure
from experiments.speed import attention, family, gpu, peers, steps, training

RATE = 0.1
KEYS = ("threefry2x32", "threefry4x32", "philox4x32")  # those whose masks jdrop specifies
FLAX_KEYS = (*KEYS, "philox2x32", "rbg", "unsafe_rbg")
FLOOR = "x * c"
LARGE = 2**16  # elements from which PyTorch is to be beaten
QUICK = {"blocks": 1, "seconds": 0.001}
PACKAGES = ("jax", "jaxlib", "flax", "equinox", "dm-haiku", "torch")
COLORS = ("tab:orange", "tab:red", "tab:green", "tab:purple", "tab:gray")


def floor(x):
    return x * (1 / (1 - RATE))


def forward_backward(function):
    """The output and the gradient of `function(key, x, *rate)` for a cotangent."""

    def both(g, key, x, *rate):
        y, pullback = jax.vjp(lambda x: function(key, x, *rate), x)
        return y, *pullback(g)

    return both


def keys(quick):
    """Keys, rates and dtypes, forward and backward."""
    shape, timing = (1024, 4096), {}
    chosen = list(itertools.product((jnp.float32, jnp.bfloat16), (RATE, 0.005, 0.5, 0.9, "traced")))
    if quick:
        shape, timing, chosen = (32, 128), QUICK, [chosen[0], chosen[-1]]
    for dtype, rate in chosen:
        x = jnp.ones(shape, dtype)
        traced = rate == "traced"
        ours = (lambda key, x, rate: peers.dropout(rate)(key, x)) if traced else peers.dropout(rate)
        flax = peers.flax_linen(RATE if traced else rate)  # which takes no traced rate
        extra = (jnp.float32(RATE),) if traced else ()
        for mode in ("forward", "forward + backward"):
            wrap, g = ((lambda f: f), ()) if mode == "forward" else (forward_backward, (x,))
            cases = {FLOOR: Case(jax.jit(floor), (x,))}
            if g:
                cases[FLOOR] = Case(jax.jit(lambda g, x: (floor(g), floor(x))), (x, x))
            for impl in FLAX_KEYS:
                cases["flax", impl] = Case(jax.jit(wrap(flax)), (*g, jax.random.key(0, impl=impl), x))
            for impl in KEYS:
                cases["jdrop", impl] = Case(jax.jit(wrap(ours)), (*g, jax.random.key(0, impl=impl), x, *extra))
            times = measure(cases, **timing)
            yield from _of_keys(times, mode, shape=shape, dtype=x.dtype, rate=f"{RATE}, traced" if traced else rate)


def _of_keys(times, mode, **about):
    if about["rate"] == RATE:
        print(f"floor of {about['dtype']} {about['shape']}, {mode}: {1000 * times[FLOOR]:.4g} ms")
    fastest = min(FLAX_KEYS, key=lambda impl: times["flax", impl])
    for impl in KEYS:
        ours, lowest = times["jdrop", impl], times[FLOOR]
        sides = about | {"key": impl, "mode": "jitted", "ours": ("jdrop.dropout", ours)}
        same, best = times["flax", impl], times["flax", fastest]
        target = at_least(10, 20) if impl == "threefry2x32" else at_least(2, 4)
        name = "threefry2x32 key" if impl == "threefry2x32" else "threefry4x32 and philox4x32 keys"
        yield record(
            f"{mode}, {name}: times faster than Flax", same / ours, target, **sides, theirs=("flax.linen", same)
        )
        target, limit = (at_least(2, 4), at_most(6, 3)) if mode == "forward" else (None, None)
        label = f"flax.linen, {fastest} key"
        yield record(
            f"{mode}: times faster than Flax with its fastest key", best / ours, target, **sides, theirs=(label, best)
        )
        yield record(f"{mode}: times the floor", ours / lowest, limit, **sides, theirs=(FLOOR, lowest))


def sizes(quick):
    """Sizes, jitted and eager, static and traced rates (eager: an array), beside every peer."""
    counts = (1, 4096) if quick else (1, *(2**n for n in range(8, 27, 2)))
    installed = [peer for peer in peers.PEERS if peer.installed]
    for peer in peers.PEERS:
        if peer not in installed:
            yield record(f"sizes: times faster than {peer.name}", "not installed", theirs=(peer.name, None))
    for size, mode in itertools.product(counts, ("jitted", "eager")):
        timing = QUICK if quick else {"blocks": 5 if size < 2**24 else 3, "seconds": 0.03}
        yield from _of_size(size, mode, installed, timing)


def _of_size(size, mode, installed, timing):
    key, x = jax.random.key(0), jnp.ones(size)
    cases = {(FLOOR, False): Case(floor if mode == "eager" else jax.jit(floor), (x,))}
    for name, traced in itertools.product(peers.OURS, (False, True)):
        cases[name, traced] = _case(peers.OURS[name], mode, traced, key, x)
    for peer in installed:
        if peer.name == "torch":
            cases[peer.name, False] = Case(peer.make(RATE), (None, _torch_ones(size)))
        else:
            for traced in {False, peer.traced}:
                cases[peer.name, traced] = _case(peer.make, mode, traced, key, x)
    times = measure(cases, **timing)

    about = {"shape": x.shape, "dtype": x.dtype, "key": "threefry2x32", "mode": mode}
    ours, lowest = (times[name, False] for name in ("jdrop.dropout", FLOOR))
    sides = {"ours": ("jdrop.dropout", ours), "theirs": (FLOOR, lowest)}
    yield record("sizes: times the floor", ours / lowest, **about, rate=RATE, **sides)
    for peer, traced in itertools.product(installed, (False, True)):
        ours, theirs = times[peer.ours, traced], times[peer.name, traced and peer.traced]
        sides = {"ours": (peer.ours, ours), "theirs": (peer.name, theirs)}
        target = at_least(1)
        if peer.name == "torch":
            target = at_least(1, 5) if size >= LARGE else None
        rate = f"{RATE}, traced" if traced else RATE
        yield record(f"sizes: times faster than {peer.name}", theirs / ours, target, **about, rate=rate, **sides)


def _case(make, mode, traced, key, x):
    rate = jnp.float32(RATE) if traced else RATE
    if mode == "eager":
        return Case(make(rate), (key, x))  # with the layer built beforehand
    if traced:
        return Case(jax.jit(lambda key, x, rate: make(rate)(key, x)), (key, x, rate))
    return Case(jax.jit(make(rate)), (key, x))


def _torch_ones(size):
    import torch

    return torch.ones(size)


def shapes(quick):
    """Odd last axes, one to five axes, masks shared along axes."""
    size, timing = (2**12, QUICK) if quick else (2**22, {})
    plain = [(size // last, last) for last in (1, 3, 7, 127, 4097) if last <= size]
    plain += [
        (size,),
        (size // 2048, 2048),
        (size // 4096, 32, 128),
        (size // 4096, 4, 16, 64),
        (size // 4096, 2, 8, 8, 32),
    ]
    batch = size // 4096
    images = (batch, 8, 8, 64)
    shared = [((batch, 32, 128), (1,)), ((batch, 32, 128), (0,)), (images, (1, 2)), (images, (-1,)), (images, (0, 3))]
    key = jax.random.key(0)
    chosen = [*((shape, ()) for shape in plain), *shared]
    for shape, axes in chosen[::4] if quick else chosen:
        x = jnp.ones(shape)
        ours, flax = peers.dropout(RATE, broadcast_dims=axes), peers.flax_linen(RATE, axes)
        cases = {FLOOR: Case(jax.jit(floor), (x,))}
        cases |= {name: Case(jax.jit(function), (key, x)) for name, function in (("ours", ours), ("flax", flax))}
        times = measure(cases, **timing)
        about = {"shape": shape, "dtype": x.dtype, "rate": RATE, "key": "threefry2x32", "mode": "jitted"}
        about |= {"ours": ("jdrop.dropout", times["ours"])}
        if axes:
            about["mode"] += f", broadcast_dims={axes}"
        kind = "shared masks" if axes else "shapes"
        what = f"{kind}: times faster than Flax"
        yield record(what, times["flax"] / times["ours"], at_least(4), **about, theirs=("flax.linen", times["flax"]))
        what = f"{kind}: times the floor"
        yield record(what, times["ours"] / times[FLOOR], **about, theirs=(FLOOR, times[FLOOR]))


def residual(quick):
    """Bytes that the backward pass keeps for each further element of a longer array."""
    shape, longer = (1024, 4096), (2048, 4096)
    functions = {f"jdrop.dropout, save={save!r}": peers.dropout(RATE, save=save) for save in ("key", "mask")}
    functions["flax.linen"] = peers.flax_linen(RATE)
    targets = dict(zip(functions, (at_most(0), at_most(1 / 8), None)))
    for (name, function), impl in itertools.product(functions.items(), KEYS):
        key = jax.random.key(0, impl=impl)
        few, many = (kept_bytes(function, key, shape) for shape in (shape, longer))
        value = (many - few) / (np.prod(longer) - np.prod(shape))
        about = {"shape": shape, "dtype": "float32", "rate": RATE, "key": impl, "mode": "jitted"}
        yield record(f"residual, bytes an element: {name}", value, targets[name], **about)


def kept_bytes(function, key, shape) -> int:
    """Bytes of the leaves of the pullback that a jitted function returns."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    pullback = jax.jit(lambda key, x: jax.vjp(lambda x: function(key, x), x)[1])
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(pullback, key, x)))


SECTIONS = {
    "keys": keys,
    "sizes": sizes,
    "shapes": shapes,
    "residual": residual,
    "block": steps.block,
    "attention": attention.attention,
    "family": family.family,
    "compilation": steps.compilation,
    "microbatches": training.microbatches,
    "loop": training.loop,
    "gpu": gpu.gpu,
}


def add_options(parser):
    parser.add_argument("--only", action="append", choices=SECTIONS, help="may be repeated (default: all)")


def run(args):
    jax.config.update("jax_enable_compilation_cache", False)  # it would hide what compilation costs
    about = machine(PACKAGES)
    print(about)
    for peer in peers.PEERS:
        if not peer.installed:
            print(f"{peer.name} is not installed: absent from every comparison")
    rows = []
    for name in args.only or SECTIONS:
        if name == "gpu" and jax.default_backend() != "gpu" and not (args.quick and args.only):
            print("gpu: JAX has no GPU here, so nothing was measured on a GPU")
            rows.append(record("GPU: all figures", "no GPU here: not measured"))
            continue
        print(f"measuring {name}", flush=True)
        with jax.default_device(None if name == "gpu" else jax.devices("cpu")[0]):
            for row in SECTIONS[name](args.quick):
                rows.append(row)
                if name == "gpu":  # on a machine that is lent for minutes
                    save_table(rows, args.out, "speed", about)
    save_table(rows, args.out, "speed", about)
    print(save_table(summary(rows), args.out, "summary", about))
    written = ["speed.csv", "speed.md", "summary.csv", "summary.md"]
    if "sizes" in (args.only or SECTIONS):
        draw(args.out / "speed.png", rows)
        written.append("speed.png")
    print(f"wrote {', '.join(written)} in {args.out}")


def draw(path, rows):
    """Time of a forward pass against size, jitted and eager, with the floor."""

    from experiments.common.plotting import plt, save

    figure, axes = plt.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
    for axis, mode in zip(axes, ("jitted", "eager")):
        chosen = [
            row for row in rows if row["what"].startswith("sizes") and (row["mode"], row["rate"]) == (mode, str(RATE))
        ]
        floor = [row for row in chosen if row["peer"] == FLOOR]
        counts = [math.prod(ast.literal_eval(row["shape"])) for row in floor]
        axis.plot(counts, [row["peer ms"] for row in floor], ":", color="black", label=f"floor: {FLOOR}")
        axis.plot(
            counts, [row["ours ms"] for row in floor], "o-", ms=4, color="tab:blue", lw=2.5, label="jdrop.dropout"
        )
        for peer, color in zip(peers.PEERS, COLORS):
            times = [row["peer ms"] for row in chosen if row["peer"] == peer.name]
            if times:
                label = peer.name + (" (eager)" if peer.name == "torch" else "")
                axis.plot(counts, times, "s-", ms=3, color=color, label=label)
        axis.set(yscale="log", xlabel="elements (float32)", title=f"Forward pass, {mode}, rate {RATE}")
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("time of a call (ms)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    save(figure, path, 120)
