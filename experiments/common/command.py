"""An experiment with its options."""

import argparse
import importlib
import os
from pathlib import Path

from experiments.common.headers import experiments


def call(name, arguments, data_dir=None) -> int:
    """Run the experiment of that name with its options; `data_dir` is the default of --data-dir, where it has that."""
    experiment = importlib.import_module(f"experiments.{name}.main")
    options = argparse.ArgumentParser(
        prog=f"python -m experiments {name}",
        description=experiments()[name],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--seed", type=int, default=0, help="root seed of the run (default: %(default)s)")
    options.add_argument(
        "--out", type=Path, default=Path("runs") / name, help="folder for tables and figures (default: %(default)s)"
    )
    options.add_argument("--quick", action="store_true", help="a small version, to see that everything runs")
    if getattr(experiment, "NEEDS_DATA", False):
        options.add_argument(
            "--data-dir",
            type=Path,
            default=data_dir or (Path(os.environ["JDROP_DATA"]) if os.environ.get("JDROP_DATA") else None),
            help="folder of the data set (default: the environment variable JDROP_DATA)",
        )
    if hasattr(experiment, "add_options"):
        experiment.add_options(options)
    args = options.parse_args(arguments)
    if args.out.exists() and not args.out.is_dir():
        options.error(f"--out is {args.out}, which is a file: name a folder, which need not be there yet.")
    return experiment.run(args) or 0
