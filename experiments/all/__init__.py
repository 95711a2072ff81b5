"""Every experiment, each in a process of its own: one after the other, or with `--quick` two at a time.

    pip install -e ".[experiments]" && python -m experiments all --quick [--data-dir FOLDER]

Each runs with the options that are given here and writes into a folder of its own name in `--out`, with what it prints
in log.txt. An experiment whose data are missing is named and left out; one that fails is named, and the command exits
with 1. `api`, which is no experiment, and `accelerators`, whose compilers are an extra of their own, are left out.
FOLDER may have the data of all: the folders mnist, notmnist, uci and co2. With `--quick`, where XLA optimises less,
nine and a half minutes on two cores; without, a day.
"""
