"""Articles 000 and 002: what dropout does to the training and the test error, and which rate is the right one."""

import numpy as np

from experiments.articles.systems import parts, row
from experiments.common.claims import Findings, above, below, by_both, errors, judge, paired, total
from experiments.common.images import take
from experiments.common.networks import NETWORKS
from experiments.common.tables import save_table
from experiments.common.variants import Parts, nats, percent, train_variants

RATES = tuple(i / 10 for i in range(10))


def penalised(run):
    """A hidden layer of 64, without dropout, with it, and with a penalty too; and with other rates."""
    setting, l2 = run.setting("dense64"), NETWORKS["dense64_l2"].l2
    of_rate = {rate: {"rate": rate, "l2": 0.0} for rate in RATES}
    variants = of_rate | {"with L2": {"rate": 0.5, "l2": l2}}
    networks = train_variants(setting, parts(setting, run.images), run.keys("dense64"), variants)
    none, dropped, both, most = networks[0.0], networks[0.5], networks["with L2"], networks[0.9]
    of_rate = {rate: networks[rate] for rate in RATES}
    network = f"{run.inputs}-64-10"
    _, measured, gap, *_ = next(gaps(network, none, dropped))
    weaker, most_of_all = errors(dropped.train, none.train), errors(most.train, dropped.train)
    penalty = paired(both.test.nll, dropped.test.nll)
    claims = judge(
        "000",
        run.seeds,
        *gaps(network, none, dropped),
        *gains(network, none, dropped),
        ("dropout weakens expressiveness", "training error, rate 0.5 less 0", weaker, above, "%"),
        ("and the more, the higher its rate", "training error, rate 0.9 less 0.5", most_of_all, above, "%"),
        ("dropout needs a penalty in the loss to prevent overfitting", f"{measured}, no penalty", gap, above, "%"),
        (f"a penalty L2 of {l2} helps beside it", "test NLL, rate 0.5, with L2 less without", penalty, below, "nats"),
    )
    names = {"no dropout": none, "dropout 0.5": dropped, f"dropout 0.5, L2 {l2}": both}
    rows = [row("000", network, name, run, setting, trained) for name, trained in names.items()]
    table = [
        {"rate": rate, "train error %": percent(trained.train), "test error %": percent(trained.test)}
        | {"train NLL": nats(trained.train), "test NLL": nats(trained.test)}
        for rate, trained in of_rate.items()
    ]
    print(save_table(table, run.out, "rates", f"{network} on {run.images.name}, {run.seeds} seeds"))
    return Findings(rows, claims, [lambda ax: draw_rates(ax, table)])


def gaps(network, none, dropped):
    """The claim that dropout makes the difference between test and training smaller."""
    for name, unit, factor in (("wrong", "%", 100), ("nll", "nats", 1)):
        test, train = (
            factor * (np.asarray(getattr(a, name), np.float64) - getattr(b, name))
            for a, b in ((dropped.test, none.test), (dropped.train, none.train))
        )
        score = {"wrong": "error", "nll": "NLL"}[name]
        measured = f"test {score} less training {score}, rate 0.5 less 0"
        yield f"dropout prevents overfitting ({network})", measured, total(test, -train), below, unit


def gains(network, none, dropped):
    """The claim that dropout makes the test error smaller."""
    text = f"dropout generalises better ({network})"
    return by_both(text, "rate 0.5 less 0", dropped.test, none.test, below)


def generalising(run):
    """A hidden layer of 128, with and without dropout; the right rate for few and for many examples."""
    setting = run.setting("dense128")
    variants = {"no dropout": {"rate": 0.0}, "dropout 0.5": {"rate": 0.5}}
    networks = train_variants(setting, parts(setting, run.images), run.keys("dense128"), variants)
    none, dropped = networks.values()
    network = f"{run.inputs}-128-10"
    claims = judge("002", run.seeds, *gaps(network, none, dropped), *gains(network, none, dropped))
    rows = [row("002", network, name, run, setting, trained) for name, trained in networks.items()]
    more, panel = sizes(run)
    return Findings(rows, claims + more, [panel])


def sizes(run):
    """The rate of the lowest NLL on validation images, for a small and for a large training set."""
    available = 4 * len(run.images.train[1]) // 5
    steps, large = (20, min(400, available)) if run.quick else (1500, min(10_000, available))
    validation = take(run.images.train, slice(available, None))
    networks, best, table = {}, {}, []
    for size in (large // 20, large):
        data = Parts(take(run.images.train, slice(size)), validation, run.images.test)
        setting = run.setting("dense128")._replace(batch_size=20, epochs=-(-20 * steps // size))
        variants = {rate: {"rate": rate} for rate in RATES}
        networks[size] = train_variants(setting, data, run.keys("size", size), variants)
        best[size] = min(RATES, key=lambda rate: networks[size][rate].validation.nll.mean())
        table += [
            {"examples": size, "rate": rate, "test error %": percent(trained.test)}
            | {"validation NLL": nats(trained.validation), "test NLL": nats(trained.test)}
            for rate, trained in networks[size].items()
        ]
    preface = f"{run.inputs}-128-10 on {run.images.name}, {run.seeds} seeds, {steps} steps"
    print(save_table(table, run.out, "sizes", preface))
    small, large = networks
    rows = []
    for size, other in ((small, large), (large, small)):
        theirs, ours = (networks[size][best[of]].test for of in (other, size))
        text = f"the right rate, by NLL on validation images, depends on the data ({size} images)"
        what = f"rate {best[other]} (the best with {other} images) less {best[size]} (with {size})"
        rows += reversed([*by_both(text, what, theirs, ours, above)])  # the NLL first, which chose the rates
    claims = judge("002", run.seeds, *rows)
    return claims, lambda ax: draw_sizes(ax, table, best)


def draw_rates(ax, table):
    rates = [of["rate"] for of in table]
    for part, style in (("train", "o--"), ("test", "o-")):
        mean, error = np.array([of[f"{part} error %"] for of in table]).T
        ax.errorbar(rates, mean, error, fmt=style, markersize=4, capsize=2, label=part)
    ax.set(xlabel="rate of dropout", ylabel="error (%)", yscale="log", title="000: the rate")
    ax.legend()


def draw_sizes(ax, table, best):
    for size in best:
        rates, values = zip(*((of["rate"], of["test NLL"]) for of in table if of["examples"] == size))
        mean, error = np.array(values).T
        line = ax.errorbar(rates, mean, error, fmt="o-", markersize=4, capsize=2, label=f"{size} examples")
        ax.axvline(best[size], color=line[0].get_color(), linestyle=":")
    ax.set(xlabel="rate of dropout", ylabel="test NLL (nats)", yscale="log")
    ax.set_title("002: the rate by the size of the training set\n(dotted: the best on validation images)")
    ax.legend()
