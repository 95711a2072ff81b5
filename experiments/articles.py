"""The networks and the claims of five introductory articles on dropout, settled with numbers and error bars.

    python -m experiments articles --data-dir FOLDER [--article 003]

000  784-64-10, dropout 0.5, Adam, 5 epochs, batch 32, the last 20 % for validation; with an L2 penalty; rates 0 to 0.9
001  50-64-10 (the images' first 50 principal components), D(x) without a scale; gradients; cost; recurrent networks
002  784-128-10, dropout 0.5, Adam, 5 epochs, batch 64; the rate for few and many images; networks 8,192 units wide
003  784-128-10 with masks by a keep probability, and three ways of relating the weights in training and prediction
004  two 3x3 convolutions (32, 64), two max-poolings, dense 128, dropout 0.5: as an ensemble, its units' correlations;
     E[r x]; dropout beside other regularizers, on 5,000 images

FOLDER holds the four IDX files of MNIST, gzipped or not; without it scikit-learn's digits are used. What an article
does not say is ours: 001's optimizer, batch and epochs are 000's, 003's network is 002's, 004 has Adam, batch 128 and
2 epochs.

Five seeds, in one program for each network. In the tables a ± is a standard error over seeds. A claim's figure is a
difference between networks of the same seeds, and its standard error that over new seeds and new test examples (over
seeds alone for correlations, over blocks for times), with these training examples. It is
confirmed or refuted only where its whole 95 % Student interval lies on one side, for these networks and data; at that
level one in twenty claims about no difference at all would get a verdict.

Writes articles (the networks), claims, errors (of the articles), and details as CSV and Markdown, and articles.png;
with --article the first three and the figure are named after it. A quarter of an hour on two cores.
"""

import math

import jax
import matplotlib

from experiments import _cost, _ensemble, _formulas, _language, _overfitting, _regularizers
from experiments._images import load_images, take
from experiments._report import save_table
from experiments._systems import Run

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NEEDS_DATA = True
ARTICLES = {
    "000": (_overfitting.penalised, _formulas.only_in_training),
    "001": (_formulas.unscaled, _cost.small, _language.language),
    "002": (_overfitting.generalising, _cost.wide),
    "003": (_formulas.keeping,),
    "004": (_ensemble.convolutional, _formulas.expectations, _regularizers.regularizers),
}


def add_options(parser):
    parser.add_argument("--article", choices=ARTICLES, help="one of them (default: all)")


def run(args):
    images = load_images(args.data_dir)
    if args.data_dir is None:
        print("Neither --data-dir nor JDROP_DATA names a folder with MNIST: these are scikit-learn's 8x8 digits.")
    seeds = 5
    if args.quick:
        print("Quick version: two seeds and few images, which settle nothing.")
        jax.config.update("jax_disable_most_optimizations", True)  # since it would compile most of the time
        seeds = 2
        images = images._replace(train=take(images.train, slice(500)), test=take(images.test, slice(200)))
    articles = [args.article] if args.article else list(ARTICLES)
    given = Run(images, jax.random.key(args.seed), args.out, seeds, args.quick)
    systems, claims, panels = [], [], []
    for article in articles:
        for part in ARTICLES[article]:
            print(f"article {article}: {part.__doc__.splitlines()[0]}", flush=True)
            findings = part(given)
            systems += findings.systems
            claims += findings.claims
            panels += findings.panels
    name = f"article_{args.article}" if args.article else "articles"
    tables = {name: systems, f"{name}_claims" if args.article else "claims": claims}
    errors = [row for row in _formulas.ERRORS if row["article"] in articles]
    if errors:
        tables[f"{name}_errors" if args.article else "errors"] = errors
    of = f"{images.name}, {seeds} seeds, root seed {args.seed}"
    prefaces = (
        f"{of}; mean ± standard error over seeds, NLL in nats.",
        f"{of}; with standard errors and 95 % Student intervals, on which the verdicts rest.",
        "m is the mask, of which each element is 1 with probability 1 - p and else 0.",
    )
    for (table, rows), preface in zip(tables.items(), prefaces):
        print(f"\n{save_table(rows, args.out, table, preface)}")
    draw(args.out / f"{name}.png", panels)
    print(f"wrote {', '.join(tables)} (.csv and .md), details, and {name}.png in {args.out}")


def draw(path, panels):
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6 * columns, 4 * rows), layout="constrained", squeeze=False)
    for ax, panel in zip(axes.flat, panels):
        panel(ax)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    figure.savefig(path, dpi=110)
    plt.close(figure)
