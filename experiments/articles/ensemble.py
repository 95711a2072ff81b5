"""Article 004: the convolutional network, dropout as an ensemble, and the co-adaptation of units."""

import jax
import jax.numpy as jnp
import numpy as np

import jdrop
from experiments.articles.formulas import EPSILON, hidden
from experiments.articles.overfitting import gains, gaps
from experiments.articles.systems import parts, row
from experiments.common.claims import Findings, below, by_both, claim, exactly, judge
from experiments.common.images import take
from experiments.common.networks import Outcome, of_network
from experiments.common.tables import estimate, save_table
from experiments.common.variants import nats, percent, train_variants

PASSES, SCALING, UNITS, DEAD = (1, 2, 5, 10, 20, 50, 100, 200), "weight scaling", 12, 1e-6
MEANS = {"arithmetic mean": lambda p: p.mean(0), "geometric mean": jdrop.mc.geometric_mean}


def convolutional(run):
    """Two convolutions, two max-poolings and a dense layer, with and without dropout."""
    # The article does not say how long it trains.
    setting, network = run.setting("conv", epochs=2), "conv 32-64, 128-10"
    variants = {"no dropout": {"rate": 0.0}, "dropout 0.5": {"rate": 0.5}}
    networks = train_variants(setting, parts(setting, run.images), run.keys("conv"), variants)
    none, dropped = networks.values()
    rows = [row("004", network, name, run, setting, trained) for name, trained in networks.items()]
    claims = judge("004", run.seeds, *gaps(network, none, dropped), *gains(network, none, dropped))
    averaged, passes_panel = ensemble(run, dropped)
    units = [hidden_units(trained, run.images.test[0][:2000]) for trained in networks.values()]
    of_pairs = [[correlations(seed) for seed in of_seeds] for of_seeds in units]
    means = [np.array([seed.mean() for seed in of_seeds]) for of_seeds in of_pairs]
    counts = " and ".join(f"{np.mean([varying(seed).shape[1] for seed in of]):.0f}" for of in reversed(units))
    text = "dropout makes units less co-adapted"
    measured = f"mean absolute correlation of the hidden units that vary ({counts} of 128), rate 0.5 less 0"
    claims += averaged + judge("004", run.seeds, (text, measured, estimate(means[1] - means[0]), below, ""))
    panels = [passes_panel, lambda ax: draw_correlations(ax, dict(zip(networks, of_pairs)))]
    return Findings(rows, claims, panels)


def ensemble(run, dropped):
    """How well the network with scaled weights, and the means over Monte Carlo passes, predict the test images."""
    keys = run.keys("passes")
    seeds = [passes(dropped.model, of_network(dropped.params, i), key, run.images.test) for i, key in enumerate(keys)]
    scores = {SCALING: dropped.test}
    scores |= {name: Outcome(*(np.stack([of[name][j] for of in seeds]) for j in range(2))) for name in seeds[0]}
    table = [
        {"prediction": name, "test error %": percent(outcome), "test NLL": nats(outcome)}
        for name, outcome in scores.items()
    ]
    print(save_table(table, run.out, "ensemble", f"Article 004's network on {run.images.name}, {run.seeds} seeds"))
    scaled, many, one = (scores[name] for name in (SCALING, "arithmetic mean, 200", "arithmetic mean, 1"))
    better = "averaging 200 Monte Carlo passes predicts better than"
    claims = judge(
        "004",
        run.seeds,
        *by_both(f"{better} one", "200 passes less 1", many, one, below),
        *by_both(f"{better} weight scaling", "200 passes less weight scaling", many, scaled, below),
    )
    claims += enumerated(
        jdrop.fold_in(run.root, "enumerated"), of_network(dropped.params, 0), dropped.model, run.images.test[0][:100]
    )
    return claims, lambda ax: draw_passes(ax, scores)


def passes(model, params, key, data, batch=1000):
    """{mean and number of passes: (negative log-likelihoods, errors) of all images} of one network."""
    predict = jdrop.linen.predictor(model, {"params": params})
    parts = []
    for start in range(0, len(data[1]), batch):
        images, labels = take(data, slice(start, start + batch))
        samples = jdrop.mc.samples(predict, jdrop.fold_in(key, start), images, max(PASSES))
        parts.append(_scores(jax.nn.softmax(samples), labels))
    names = [f"{mean}, {count}" for mean in MEANS for count in PASSES]
    return {name: tuple(np.concatenate([part[name][j] for part in parts]) for j in range(2)) for name in names}


@jax.jit
def _scores(probabilities, labels):
    scores = {}
    for name, mean in MEANS.items():
        for count in PASSES:
            of_ensemble = mean(probabilities[:count])
            nll = -jnp.log(jnp.take_along_axis(of_ensemble, labels[:, None], -1)[:, 0])
            scores[f"{name}, {count}"] = nll, of_ensemble.argmax(-1) != labels
    return scores


def enumerated(key, params, model, images):
    """Weight scaling beside the geometric mean over every mask of twelve units, below one layer and below two."""
    _, units = hidden(model, params, images)
    most = jnp.argsort(-units.mean(0))[:UNITS]
    last = params["Dense_0"]["Dense_1"]
    kernel, rate = last["kernel"][most], 0.5
    initial = jax.nn.initializers.lecun_normal()
    inner, outer = (initial(jdrop.fold_in(key, i), shape) for i, shape in enumerate(((UNITS, 32), (32, 10))))

    def one(units):
        return jax.nn.softmax(units @ kernel + last["bias"])

    def two(units):
        return jax.nn.softmax(jax.nn.relu(units @ inner) @ outer)

    masks, weights = jdrop.mc.all_masks(UNITS, rate)
    few = units[:, most]
    for network, text in (
        (one, "weight scaling is the geometric mean over all masks (dropout before the softmax layer)"),
        (two, "and so it is with a ReLU layer between dropout and the softmax layer (random weights)"),
    ):
        outputs = jax.lax.map(lambda mask, network=network: network(mask * few / (1 - rate)), masks)
        error = float(abs(jdrop.mc.geometric_mean(outputs, weights) - network(few)).max())
        measured = f"largest difference of a probability, {len(masks)} masks, {len(images)} images"
        yield claim("004", text, measured, error, exactly(error < 100 * EPSILON))


def hidden_units(trained, images):
    """The hidden units of each network, shape (images, units)."""
    count = len(trained.test.nll)
    return [np.asarray(hidden(trained.model, of_network(trained.params, i), images)[1]) for i in range(count)]


def varying(units):
    """Those that are not constant."""
    return units[:, units.std(0) > DEAD]


def correlations(units):
    """The absolute correlations of all pairs of units that are not constant."""
    alive = varying(units)
    return abs(np.corrcoef(alive.T)[np.triu_indices(alive.shape[1], 1)])


def draw_passes(ax, scores):
    for name in MEANS:
        values = [nats(scores[f"{name}, {count}"]) for count in PASSES]
        mean, error = np.array(values).T
        ax.errorbar(PASSES, mean, error, fmt="o-", markersize=4, capsize=2, label=f"{name} of passes")
    scaled = nats(scores[SCALING])
    ax.axhline(scaled.mean, color="black", linestyle="--", label=SCALING)
    ax.axhspan(scaled.mean - scaled.error, scaled.mean + scaled.error, color="black", alpha=0.15, linewidth=0)
    ax.set(xlabel="Monte Carlo passes", ylabel="test NLL (nats)", xscale="log", title="004: dropout as an ensemble")
    ax.set_xticks(PASSES, PASSES)
    ax.minorticks_off()
    ax.legend()


def draw_correlations(ax, correlations):
    for name, of_seeds in correlations.items():
        ax.hist(np.concatenate(of_seeds), np.linspace(0, 1, 41), density=True, histtype="step", label=name)
    ax.set(xlabel="|correlation| of two hidden units", ylabel="density", title="004: co-adaptation")
    ax.legend()
