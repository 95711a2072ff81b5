"""The comparison and its report."""

import contextlib
import statistics

import jax
import jax.numpy as jnp

import jdrop
from experiments.common.plotting import plt, save
from experiments.common.ratios import at_most, machine
from experiments.common.tables import save_table
from experiments.common.timing import Case, compiled, measure
from experiments.existing_models.models import MODELS

RATE = 0.1
TARGET = at_most(1.05)  # times a step without dropout
PACKAGES = ("jax", "jaxlib", "flax", "transformers", "qwix", "equinox", "dm-haiku")


def add_options(parser):
    parser.add_argument("--only", action="append", choices=MODELS, help="may be repeated (default: all)")


def run(args):
    jax.config.update("jax_enable_compilation_cache", False)  # it would hide what compilation costs
    about = machine(PACKAGES)
    print(about)
    rows = []
    for name in args.only or MODELS:
        try:
            steps = {rate: train_step(*MODELS[name](rate, args.quick)) for rate in (0.0, RATE)}
        except ModuleNotFoundError as error:
            print(f"{name} is left out: {error.name} is not installed")
            continue
        print(f"measuring {name}", flush=True)
        rows += of_model(name, *steps[0.0], *steps[RATE], args)
    print(save_table(rows, args.out, "existing_models", f"{about}; rate {RATE}, seed {args.seed}."))
    draw(args.out / "existing_models.png", rows)
    print(f"wrote existing_models.csv, existing_models.md and existing_models.png in {args.out}")


def train_step(params, loss):
    """A jitted step of gradient descent, as a user has it, and the parameters to begin with."""

    @jax.jit
    def step(params, key):
        value, gradients = jax.value_and_grad(loss)(params, key)
        return jax.tree.map(lambda param, gradient: param - 1e-3 * gradient, params, gradients), value

    return step, params


def of_model(name, plain, plain_params, step, params, args):
    key = jax.random.key(args.seed)
    steps = {
        "no dropout": (plain, (plain_params, key)),
        "as it is": (step, (params, key)),
        "accelerate": (step, (params, key)),
    }
    cases, compiling = {}, {}
    for case, (function, arguments) in steps.items():
        seconds = []
        for _ in range(1 if args.quick else 3):
            with jdrop.accelerate() if case == "accelerate" else contextlib.nullcontext():
                program, taken = compiled(function, arguments)
            seconds.append(taken)
        cases[case], compiling[case] = Case(program, arguments), statistics.median(seconds)
    fast = jdrop.accelerate(step)
    check(name, cases["as it is"].function(params, key), fast(params, key))
    times = measure(cases, blocks=1 if args.quick else 15, seconds=0.001 if args.quick else 0.5)
    for case, seconds in times.items():
        ratio = seconds / times["no dropout"]
        yield {
            "model": name,
            "dropout": case,
            "step, ms": f"{1000 * seconds:.4g}",
            "times no dropout": f"{ratio:.3f}",
            "at most": f"{TARGET.least}" if case == "accelerate" else "-",
            "met": TARGET.met(round(ratio, 3)) if case == "accelerate" else "-",
            "scratch, MiB": f"{cases[case].function.memory_analysis().temp_size_in_bytes / 2**20:.2f}",
            "compilation, s": f"{compiling[case]:.2f}",
            "masks by jdrop": sum(draw.times for draw in fast.report.draws) if case == "accelerate" else "-",
            "draws left": len(fast.report.left) if case == "accelerate" else "-",
        }


def check(name, before, after):
    """That a step gives what it gave, but for the masks."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise AssertionError(f"{name}: a step returns another tree in jdrop.accelerate.")
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after)):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise AssertionError(f"{name}: {old.dtype} {old.shape} became {new.dtype} {new.shape}.")
        if not jnp.isfinite(new).all():
            raise AssertionError(f"{name}: a parameter of shape {new.shape} is not finite any more.")


def draw(path, rows):
    """Time of a step of each model, times that without dropout."""
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    names = list(dict.fromkeys(row["model"] for row in rows))
    for offset, case, color in ((-0.2, "as it is", "tab:orange"), (0.2, "accelerate", "tab:blue")):
        heights = [float(row["times no dropout"]) for row in rows if row["dropout"] == case]
        places = [place + offset for place in range(len(names))]
        bars = axis.bar(places, heights, 0.4, color=color, label=case if case == "as it is" else "in jdrop.accelerate")
        axis.bar_label(bars, fmt="%.2f")
    axis.axhline(1, color="black", lw=1, ls=":", label="no dropout")
    axis.set_xticks(range(len(names)), names)
    axis.set(ylabel="time of a train step,\ntimes that without dropout", title=f"Models that exist, dropout {RATE}")
    axis.margins(y=0.15)
    figure.legend(loc="outside lower center", ncols=3)
    save(figure, path)
