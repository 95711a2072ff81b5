"""Run an experiment by name: `python -m experiments NAME [options]`."""

import argparse
import sys

from experiments import MissingFiles
from experiments.common.command import call
from experiments.common.headers import experiments


def main(argv=None) -> int:
    available = experiments()
    listing = "experiments:\n" + "\n".join(f"  {name:<15} {text.splitlines()[0]}" for name, text in available.items())
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description="Run one of jdrop's experiments.",
        epilog=listing + "\n\n`python -m experiments NAME --help` tells an experiment's own options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="one of the experiments below")
    argv = sys.argv[1:] if argv is None else list(argv)
    args, rest = parser.parse_args(argv[:1]), argv[1:]
    if args.name not in available:
        print(f"python -m experiments: there is no experiment {args.name!r}\n{listing}", file=sys.stderr)
        return 2
    try:
        return call(args.name, rest)
    except MissingFiles as error:
        print(f"python -m experiments {args.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
