"""Monte Carlo dropout from samples to a decision: measures, metrics, calibration, acquisition, regression, speed.

    python -m experiments uncertainty

classification  the network of `digits` on 300 training digits: what uncertainty is worth on 997 test digits, and on
                rotated and corrupted ones; temperature scaling and conformal sets, fitted on 500 validation digits
active          which digits to have labelled next
regression      scikit-learn's diabetes data: the noise's precision from the prior and from validation data, conformal
                intervals; and a curve with its band
speed           100 passes beside one, and beside loops over passes

Each topic writes its tables (CSV and Markdown) and figures (PNG). Numbers are means over seeds, with standard errors: a
seed has its own split, initialisation and masks. Nothing is tuned or fitted on the test sets. A minute on two cores,
of which half is compilation. PyTorch's loop is timed, with the dense network, where torch is installed.
"""

import jax

from experiments._active import active
from experiments._passes import speed
from experiments._pictures import classification
from experiments._regression import regression

TOPICS = {topic.__name__: topic for topic in (classification, active, regression, speed)}


def add_options(parser):
    parser.add_argument("--topic", action="append", choices=TOPICS, help="may be repeated (default: all)")


def run(args):
    root, out = jax.random.key(args.seed), args.out
    out.mkdir(parents=True, exist_ok=True)
    for name in args.topic or TOPICS:
        print(f"\n{name}")
        TOPICS[name](root, out, args.quick)
    print(f"\nwrote the tables and figures in {out}")
