"""The comparison and its report."""

import csv
import importlib.util
import json
import subprocess
import sys

from experiments.accelerators import aot
from experiments.common.plotting import plt, save
from experiments.common.ratios import NONE, at_most, rounded
from experiments.common.tables import save_table

COMPILERS = {"h100": "jax_cuda12_plugin", "v5e": "libtpu", "v5p": "libtpu", "v6e": "libtpu"}
LIMIT = 600  # seconds without a result after which a compiler is given up
SCRATCH = "scratch, bytes an element"


def add_options(parser):
    parser.add_argument("--only", action="append", choices=COMPILERS, help="may be repeated (default: all)")


def run(args):
    kept, rows = _earlier(args.out / "accelerators.csv"), []
    for target in COMPILERS:
        if target not in (args.only or COMPILERS) or importlib.util.find_spec(COMPILERS[target]) is None:
            rows += [row for row in kept if row["device"] == target]
            print(f"{target}: {COMPILERS[target]} is not installed, or it was not asked for: not compiled")
            continue
        print(f"compiling for {target}", flush=True)
        rows += figures(target, compile_all(target, aot.names(target, args.quick)))
    if not rows:
        print("no compiler is installed, so nothing was compiled")
        return 1
    print(
        save_table(
            rows, args.out, "accelerators", "Compiled, not run: see `python -m experiments accelerators --help`."
        )
    )
    draw(args.out / "accelerators.png", rows)
    print(f"wrote accelerators.csv, accelerators.md and accelerators.png in {args.out}")


def compile_all(target, names) -> dict:
    """Name -> what the compiler said, or None where it crashed or took too long."""
    results, left = {}, list(names)
    while left:
        command = [sys.executable, "-m", "experiments.accelerators.aot", target, *left]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
            for line in child.stdout:
                if line.startswith("RESULT "):
                    result = json.loads(line.removeprefix("RESULT "))
                    results[result.pop("name")] = result
                    print(".", end="", flush=True)
        left = left[len(results) - len(names) + len(left) :]
        if left:
            print(f"\n{target}: the compiler crashed on {left[0]!r}")
            results[left.pop(0)] = None
    print()
    return results


def figures(target, results):
    """The rows of a target's table."""
    for name, result in results.items():
        what, *details = name.split(" | ")
        if what in ("jdrop", "jdrop xla") and result:
            yield from _of_dropout(target, what, *details, result, results)
    yield from _of_models(target, results)


def _of_dropout(target, what, shape, rate, mode, result, results):
    dims, dtype = aot.SHAPES[shape]
    size = aot.size(f"{ {'bfloat16': 'bf16', 'float32': 'f32'}[dtype] }[{','.join(map(str, dims))}]")
    elements = size / {"bfloat16": 2, "float32": 4}[dtype]
    flax, floor = (results.get(f"{peer} | {shape} | 0.1 | {of}") for peer, of in (("flax", mode), ("x * c", "forward")))
    passes = aot.MODES.index(mode) + 1

    def row(name, value, target_=None, peer=None):
        return _row(target, name, f"{shape}, rate {rate}, {mode}", value, target_, peer)

    def of_peer(measure):
        return NONE if not flax else measure(flax)

    if target == "h100":
        path = "XLA path" if what == "jdrop xla" else "kernel"
        launched = at_most(4, 2) if what == "jdrop xla" else at_most(1)
        # A launch each pass, and one for the numbers of a traced rate.
        yield row(
            f"{path}: launches a pass", result["launches"] / passes, launched, of_peer(lambda f: f["launches"] / passes)
        )
        scratch = at_most(1 / 8) if what == "jdrop xla" else None
        yield row(
            f"{path}: {SCRATCH}", result["scratch"] / elements, scratch, of_peer(lambda f: f["scratch"] / elements)
        )
        return
    yield row(SCRATCH, result["scratch"] / elements, at_most(0, 0), of_peer(lambda f: f["scratch"] / elements))
    if floor:
        moved = floor["moved"] * passes
        yield row(
            "moved, x that of x * c", result["moved"] / moved, at_most(1.05, 1.0), of_peer(lambda f: f["moved"] / moved)
        )
    if target == "v5e":
        limit = at_most(1.1, 1.0) if rate == "0.5" else at_most(1.6, 1.3)
        floor = 2 * aot.VECTOR / aot.HBM  # cycles of a vector's way in and out
        bundles = result["bundles"] / floor
        yield row("bundles, x the memory floor", bundles, limit, of_peer(lambda f: f["bundles"] / floor))


def _of_models(target, results):
    def get(name, what="launches"):
        return (results.get(name) or {}).get(what)

    for kind, bounds in (("plain", at_most(12, 6)), ("checkpoint", at_most(18, 9))):
        none, ours, flax = (get(f"block {layer} | {kind}") for layer in ("none", "jdrop", "flax"))
        if none and ours:
            about = f"bfloat16 (16, 512, 1024), {kind}"
            yield _row(target, "transformer block: launches that dropout adds", about, ours - none, bounds, flax - none)
    for length in aot.LENGTHS:
        about, scratch = f"bfloat16 (1, {length}, 4, 64)", get(f"attention jdrop | {length}", "scratch")
        half, dense = (get(f"attention {name}", "scratch") for name in (f"jdrop | {length // 2}", f"flax | {length}"))
        if scratch:
            yield _row(
                target, "attention: scratch, MiB", about, scratch / 2**20, None, dense / 2**20 if dense else NONE
            )
        if scratch and half:
            yield _row(target, "attention: scratch, x that of half the length", about, scratch / half, at_most(2.2))
        if scratch and dense:
            yield _row(target, "attention: scratch, x dense Flax's", about, scratch / dense, at_most(1 / 8))
    plain = {what: get("family dropout | forward and backward", what) for what in ("launches", "moved")}
    for name in aot.FAMILY if all(plain.values()) else ():
        of = {what: get(f"family {name} | forward and backward", what) for what in ("launches", "moved", "scratch")}
        if of["launches"]:
            about = f"bfloat16 (16, 512, 1024), {name}, forward and backward"
            yield _row(
                target, "family: launches, x those of dropout", about, of["launches"] / plain["launches"], at_most(1.2)
            )
            if target == "h100":  # on a TPU slices of x are fetched ahead, which counts them more than once
                yield _row(
                    target, "family: moved, x that of dropout", about, of["moved"] / plain["moved"], at_most(1.2)
                )
            yield _row(target, f"family: {SCRATCH}", about, of["scratch"] / 2**23)
    for name in ("mc_dropout", "samples"):
        if get("vmap | 100") and get(f"{name} | 100"):
            about = "784-1024-1024-10, batch 256, 100 samples"
            ratio = get(f"{name} | 100") / get("vmap | 100")
            yield _row(target, f"{name}: launches, x a vmap over keys", about, ratio, at_most(2, 1.2))
            yield _row(target, f"{name}: loops", about, get(f"{name} | 100", "loops"), at_most(0))
    if get("seeds | 1") and get("seeds | 5"):
        ratio = get("seeds | 5") / get("seeds | 1")
        about = "784-1024-1024-10, batch 256, 5 seeds"
        yield _row(target, "vmap_seeds: launches of a step, x one seed's", about, ratio, at_most(2, 1.2))
    for name, result in results.items():
        if name.startswith("mesh") and result:
            kind, count = name.removeprefix("mesh ").split(" | ")
            about = f"bfloat16 (8192, 8192), forward and backward, {count} devices, {kind} axes"
            yield _row(target, "sharded: collectives", about, result["collectives"], at_most(0))
            yield _row(target, f"sharded: {SCRATCH}", about, result["scratch"] * int(count) / 2**26)


def _row(device, what, about, value, target=None, peer=NONE):
    value = rounded(value)
    return {
        "device": device,
        "what": what,
        "of": about,
        "jdrop": value,
        "at least": f"{target.sign} {target.least:g}" if target else NONE,
        "aim": f"{target.sign} {target.aim:g}" if target and target.aim is not None else NONE,
        "met": target.met(value) if target else NONE,
        "Flax": peer if isinstance(peer, str) else rounded(peer),
    }


def _earlier(path):
    """The rows of an earlier run."""
    if not path.exists():
        return []
    with open(path) as file:
        rows = list(csv.DictReader(file))
    return [
        row | {name: row[name] if row[name] == NONE else float(row[name]) for name in ("jdrop", "Flax")} for row in rows
    ]


def draw(path, rows):
    """jdrop beside Flax: what a forward pass at rate 0.1 takes on each device."""
    panels = {
        "bundles, x the memory floor": ("v5e", "TPU v5e: bundles, times the memory floor"),
        "moved, x that of x * c": ("v5e", "TPU v5e: bytes moved, times those of x * c"),
        "kernel: launches a pass": ("h100", "H100: kernels started"),
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 4), layout="constrained")
    for axis, (what, (device, title)) in zip(axes, panels.items()):
        chosen = [
            row
            for row in rows
            if (row["device"], row["what"]) == (device, what) and row["of"].endswith("rate 0.1, forward")
        ]
        places = range(len(chosen))
        for shift, name, color in ((-0.2, "jdrop", "tab:blue"), (0.2, "Flax", "tab:orange")):
            values = [0 if row[name] == NONE else row[name] for row in chosen]
            bars = axis.bar([place + shift for place in places], values, 0.38, label=name, color=color)
            axis.bar_label(bars, fmt="%.3g")
        axis.axhline(1, color="black", ls=":", lw=1)
        axis.set_xticks(list(places), [row["of"].split(", rate")[0].replace(" ", "\n", 1) for row in chosen])
        axis.set_title(title)
        axis.margins(y=0.12)
    axes[0].set_ylabel("compiled, not run")
    axes[0].legend()
    save(figure, path, 120)
