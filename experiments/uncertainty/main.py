"""The comparison and its report."""

import jax

from experiments.uncertainty.passes import speed
from experiments.uncertainty.pictures import classification
from experiments.uncertainty.regression import regression

TOPICS = {topic.__name__: topic for topic in (classification, regression, speed)}


def add_options(parser):
    parser.add_argument("--topic", action="append", choices=TOPICS, help="may be repeated (default: all)")


def run(args):
    root, out = jax.random.key(args.seed), args.out
    out.mkdir(parents=True, exist_ok=True)
    for name in args.topic or TOPICS:
        print(f"\n{name}")
        TOPICS[name](root, out, args.quick)
    print(f"\nwrote the tables and figures in {out}")
