"""Articles 001 and 002: what dropout adds to the time of a train step, and to what the backward pass keeps."""

import statistics

import flax.linen as nn
import jax
import numpy as np
import optax

import jdrop
from experiments.common.claims import Findings, below, claim, exactly, judge
from experiments.common.tables import estimate, save_table
from experiments.common.timing import Case, measure

RATE, CHEAP, BLOCKS = 0.5, 1.1, 6
LAYERS = {"no dropout": None, "jdrop": jdrop.linen.Dropout, "Flax": nn.Dropout}
NONE, OURS, THEIRS = LAYERS
PREFACE = (
    "Train steps with SGD: the median time, and the mean and standard error of the ratio over blocks, each compiled "
    "anew since two programs of one kind differ in pace. Kept: what the backward pass is handed, with the weights, if "
    "it is a program of its own."
)


class Network(nn.Module):
    """Hidden layers with ReLU and dropout, and ten logits."""

    widths: tuple[int, ...]
    layer: type | None

    @nn.compact
    def __call__(self, x):
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
            x = x if self.layer is None else self.layer(RATE, deterministic=False)(x)
        return nn.Dense(10)(x)


class Training:
    """A call is a train step with SGD, by `make_train_step`."""

    def __init__(self, model, params, batch):
        def loss_fn(params, batch, key):
            logits = model.apply(params, batch[0], rngs={"dropout": key})
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean(), {}

        self.step, self.batch = jdrop.training.make_train_step(loss_fn), batch
        self.state = jdrop.training.TrainState.create(params=params, tx=optax.sgd(1e-3), key=jax.random.key(0))
        self.pullback = jax.jit(lambda params, key: jax.vjp(lambda params: loss_fn(params, batch, key)[0], params)[1])

    def kept(self):
        """Bytes that a forward pass hands to a backward pass that is a program of its own."""
        kept = jax.tree.leaves(jax.eval_shape(self.pullback, self.state.params, self.state.key))
        return sum(leaf.size * leaf.dtype.itemsize for leaf in kept)

    def scratch(self):
        """Bytes that XLA lays out for a step beside its arguments and results."""
        return self.step.lower(self.state, self.batch).compile().memory_analysis().temp_size_in_bytes

    def __call__(self):
        self.state, metrics = self.step(self.state, self.batch)
        return metrics["loss"]


def compare(run, inputs, widths, batch):
    """A network's name; its rows, seconds, bytes kept and trainings, without dropout, with jdrop's and with Flax's."""
    blocks, seconds_a_block = (2, 0.0) if run.quick else (BLOCKS, 0.15)
    examples = np.ones((batch, inputs), np.float32), np.zeros(batch, np.int32)
    init = jax.jit(Network(widths, None).init)
    seconds = {name: [] for name in LAYERS}
    for block in range(blocks):
        # Each has programs and arrays of its own, since the pace depends on their places in memory; and on the order.
        order = np.roll(list(LAYERS), block)
        trainings = {
            name: Training(Network(widths, LAYERS[name]), init(jax.random.key(0), examples[0]), examples)
            for name in order
        }
        cases = {name: Case(training) for name, training in trainings.items()}
        for name, best in measure(cases, 1, seconds_a_block).items():
            seconds[name].append(best)
    kept = {name: training.kept() for name, training in trainings.items()}
    network = "-".join(map(str, (inputs, *widths, 10)))
    table = [
        {"network": network, "batch": batch, "dropout": name}
        | {"step ms": f"{1000 * statistics.median(seconds[name]):.3g}"}
        | {"times without dropout": estimate(np.divide(seconds[name], seconds[NONE]))}
        | {"kept MB": f"{kept[name] / 1e6:.4g}"}
        for name in LAYERS
    ]
    return network, table, seconds, kept, trainings


def small(run):
    """What dropout adds to the time of a train step."""
    tables, claims = [], []
    for inputs, width, batch in ((50, 64, 32), (784, 128, 64))[: 1 if run.quick else 2]:
        network, table, seconds, *_ = compare(run, inputs, (width,), batch)
        tables += table
        text = f"dropout is cheap: less than a tenth of a step ({network})"
        claims += time_claim("001", text, seconds, OURS, NONE, CHEAP)
    print(save_table(tables, run.out, "cost", PREFACE))
    return Findings(claims=claims)


def wide(run):
    """The open problem, large networks with limited compute: 8,192 units a layer."""
    tables, claims, batch, width = [], [], 64, 256 if run.quick else 8192
    for widths in ((width,), (width, width))[: 1 if run.quick else 2]:
        network, table, seconds, kept, trainings = compare(run, 784, widths, batch)
        tables += table
        elements = batch * sum(widths)
        ours, theirs = ((kept[layer] - kept[NONE]) / elements for layer in (OURS, THEIRS))
        text = f"dropout must hand as much as its input to the backward pass ({network})"
        measured = f"bytes a unit and example that jdrop hands on (Flax {theirs:.3g})"
        claims.append(claim("002", text, measured, ours, exactly(ours >= 4), "bytes"))
        less = (trainings[OURS].scratch() - trainings[THEIRS].scratch()) / elements
        text = f"a step as one program needs less memory with jdrop than with Flax ({network})"
        measured = "scratch bytes a unit and example, jdrop less Flax"
        claims.append(claim("002", text, measured, less, exactly(less < -0.1), "bytes"))
        claims += time_claim("002", f"a step is faster with jdrop than with Flax ({network})", seconds, OURS, THEIRS)
        claims += time_claim("002", f"with jdrop dropout is cheap ({network})", seconds, OURS, NONE, CHEAP)
    print(save_table(tables, run.out, "width", PREFACE))
    return Findings(claims=claims, panels=[lambda ax: draw(ax, tables)])


def time_claim(article, text, seconds, one, other, bound=1.0):
    """That a step with one kind of dropout takes less than `bound` times one with another, over the blocks."""
    ratio = estimate(np.divide(seconds[one], seconds[other]))

    def verdict(value, blocks):
        return below(value, blocks, bound)

    return judge(
        article, len(seconds[one]), (text, f"step time, {one} over {other}; under {bound}?", ratio, verdict, "")
    )


def draw(ax, table):
    networks = dict.fromkeys(of["network"] for of in table)
    for i, name in enumerate((OURS, THEIRS)):
        mean, error = np.array([of["times without dropout"] for of in table if of["dropout"] == name]).T
        ax.bar(
            np.arange(len(networks)) + (i - 0.5) * 0.35, 100 * (mean - 1), 0.35, yerr=100 * error, capsize=3, label=name
        )
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(range(len(networks)), networks)
    ax.set(ylabel="time that dropout adds to a step (%)", title="002: wide networks")
    ax.legend()
