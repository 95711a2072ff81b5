"""The comparison and its report."""

import math

import jax

from experiments.articles import cost, ensemble, formulas, language, overfitting, regularizers
from experiments.articles.systems import Run
from experiments.common.images import load_images, take
from experiments.common.plotting import plt, save
from experiments.common.tables import save_table

NEEDS_DATA = True
ARTICLES = {
    "000": (overfitting.penalised, formulas.only_in_training),
    "001": (formulas.unscaled, cost.small, language.language),
    "002": (overfitting.generalising, cost.wide),
    "003": (formulas.keeping,),
    "004": (ensemble.convolutional, formulas.expectations, regularizers.regularizers),
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
    errors = [row for row in formulas.ERRORS if row["article"] in articles]
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
    save(figure, path, 110)
