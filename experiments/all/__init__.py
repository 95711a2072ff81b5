"""Every experiment, one after the other, each in a process of its own.

    pip install -e ".[experiments]" && python -m experiments all --quick [--data-dir FOLDER]

Each runs with the options that are given here and writes into a folder of its own name in `--out`. An experiment whose
data are missing is named and left out; one that fails is named at the end, and the command exits with 1. `api`, which
is no experiment, is left out. FOLDER may have the data of all: the folders mnist, notmnist, uci and co2. With `--quick`
eight minutes on two cores; without, a day.
"""
