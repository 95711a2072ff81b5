"""A recurrent language model: dropout with fresh masks at each step, with one mask a sequence, and zoneout.

An LSTM of width 128 predicts the next character of the English reference text that CPython ships for `help()`: its
topics in alphabetical order, without the paragraphs that occurred before, 373,345 characters in Python 3.11 (another
version has another text). It is cut into blocks of 4,096 characters; of each ten in a row two are for training, the
third for validation and the last six for testing (little text trains, and much shows small differences); the fourth
served to choose the sizes and the learning rate. Each variant is tested at its best epoch of 20 by validation, and
starts from the same parameters. Masks fall on the cell's inputs and on the h that its gates read, not on its memory c.

Chosen by validation bits, with two other seeds: the rate of fresh masks of 0.2, 0.1 and 0.05 (2.094, 2.048 and 2.035
bits), that of one mask a sequence of 0.1 and 0.05 (2.049, 2.037), and zoneout's of (c, h) of (0.5, 0.05), which are
those of Krueger et al. 2017 for characters, (0.1, 0.1) and (0.2, 0.05) (2.072, 2.064, 2.046); no dropout has 2.090.
0.05 is the smallest rate tried, and a smaller one may be better.
Four minutes on two cores.
"""

from collections.abc import Callable
from pydoc_data.topics import topics

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdrop
from experiments.common.claims import Findings, above, below, judge, paired
from experiments.common.fitting import fresh_states
from experiments.common.tables import estimate, save_table

BLOCK, PARTS = 4096, {"train": range(2), "validation": range(2, 3), "test": range(4, 10)}
EVALUATED = 256  # characters of a sequence where nothing is trained: few of them lack a context
BATCH, EMBEDDING, LEARNING_RATE, EPOCHS = 16, 32, 1e-2, 20


def recurrent_dropout(rate, fresh):
    return lambda cell, evaluated: jdrop.linen.RecurrentDropout(cell, rate, fresh=fresh, deterministic=evaluated)


VARIANTS = {
    "none": lambda cell, evaluated: cell,
    "fresh masks": recurrent_dropout(0.05, fresh=True),
    "variational masks": recurrent_dropout(0.05, fresh=False),
    "zoneout": lambda cell, evaluated: jdrop.linen.Zoneout(cell, (0.2, 0.05), deterministic=evaluated),
}
STYLES = dict(zip(VARIANTS, (("tab:gray", "-"), ("tab:red", "-"), ("tab:blue", "--"), ("tab:green", "-"))))


class Network(nn.Module):
    """Logits of the next character; `wrap(cell, deterministic)` gives the cell its dropout."""

    wrap: Callable
    width: int
    characters: int

    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.Embed(self.characters, EMBEDDING)(x)
        x = nn.RNN(self.wrap(nn.OptimizedLSTMCell(self.width), deterministic))(x)
        return nn.Dense(self.characters)(x)


def language(run):
    """A recurrent language model with fresh masks, with one mask a sequence, and with zoneout."""
    width, length, epochs, blocks = (8, 16, 2, 10) if run.quick else (128, 64, EPOCHS, None)
    parts, characters = split(blocks)
    data = parts["train"].reshape(-1, length)
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, len(data) // BATCH * epochs)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    models = {name: Network(wrap, width, characters) for name, wrap in VARIANTS.items()}
    states = fresh_states(
        models["none"], data[:1], tx, run.keys("language")
    )  # for all variants: their parameters have the same names
    curves, scores = {}, {}
    for name, model in models.items():
        curves[name], scores[name] = train(model, states, data, parts, epochs)

    tests = {name: of_parts["test"] for name, of_parts in scores.items()}
    rows = [
        {"variant": name}
        | {f"{part} (bits per character)": estimate(values.mean(1)) for part, values in scores[name].items()}
        | {"test, less that of none": paired(tests[name], tests["none"])}
        for name in VARIANTS
    ]
    sizes = ", ".join(f"{part.size:,} for {name}" for name, part in parts.items())
    preface = (
        f"A character language model (LSTM of width {width}) at its best validation epoch of {epochs}. Characters: "
        f"{sizes}. Mean ± standard error over {run.seeds} seeds; of differences, over seeds and blocks of test text."
    )
    print(save_table(rows, run.out, "language", preface))
    return Findings(claims=claims(tests, run.seeds), panels=[lambda ax: draw(ax, curves)])


def claims(tests, seeds):
    """The rows of the claims, from each variant's test bits of shape (seeds, blocks)."""

    def row(text, variant, other, verdict):
        measured = f"test bits per character, {variant} less {other}"
        return text, measured, paired(tests[variant], tests[other]), verdict, "bits"

    return judge(
        "001",
        seeds,
        row("dropout with fresh masks at each step does not help a recurrent network", "fresh masks", "none", above),
        row("one mask a sequence does better than fresh masks", "variational masks", "fresh masks", below),
        row("one mask a sequence does better than no dropout", "variational masks", "none", below),
        row("zoneout does better than no dropout", "zoneout", "none", below),
        row("zoneout does better than fresh masks", "zoneout", "fresh masks", below),
    )


def read():
    """The text, each of its paragraphs once: repeated ones would be in more than one part."""
    paragraphs = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    return "\n\n".join(dict.fromkeys(paragraphs))


def split(blocks=None):
    """The parts of the text's first blocks, shape (blocks, BLOCK) each, and how many distinct characters there are."""
    characters, text = np.unique(list(read()), return_inverse=True)
    text = text[: len(text) // BLOCK * BLOCK].reshape(-1, BLOCK).astype(np.int32)[:blocks]
    place = np.arange(len(text)) % 10
    return {name: text[np.isin(place, places)] for name, places in PARTS.items()}, len(characters)


def bits(model, params, sequences):
    """Bits per character of each sequence, from the second character on."""
    logits = model.apply({"params": params}, sequences[:, :-1], True)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, sequences[:, 1:])
    return nats.mean(-1) / jnp.log(2.0)


def train(model, states, data, parts, epochs):
    """Train a stack: its validation bits, shape (epochs, seeds), and {part: bits}, shape (seeds, blocks) each."""

    def loss_fn(params, batch, key):
        logits = model.apply({"params": params}, batch[:, :-1], False, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean(), {}

    @jax.jit
    def of_block(stack, block):
        return jax.lax.map(lambda params: bits(model, params, block.reshape(-1, EVALUATED)).mean(), stack)

    def evaluate(states, part):  # block by block, so that one program serves all parts
        return np.stack([of_block(states.params, block) for block in parts[part]], axis=1)

    states, history = jdrop.training.fit(
        states,
        jdrop.training.vmap_seeds(jdrop.training.make_train_step(loss_fn)),
        data,
        epochs=epochs,
        batch_size=BATCH,
        eval_fn=lambda states: {"loss": evaluate(states, "validation").mean(1)},
        keep_best=True,
        scan=True,
        progress=False,
    )
    return np.asarray(history["eval_loss"]), {part: evaluate(states, part) for part in PARTS}


def draw(ax, curves):
    """The validation bits after each epoch, but for the first fall, beside which the differences would be too small."""
    for name, values in curves.items():
        color, style = STYLES[name]
        epochs, mean = np.arange(1, len(values) + 1), values.mean(1)
        error = values.std(1, ddof=1) / np.sqrt(values.shape[1])
        ax.plot(epochs, mean, style, color=color, label=name)
        ax.fill_between(epochs, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
    lowest = min(values.mean(1).min() for values in curves.values())
    ax.set(xlabel="epoch", ylabel="validation loss (bits per character)", ylim=(lowest - 0.03, lowest + 0.35))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_title("001: a recurrent language model")
    ax.legend()
