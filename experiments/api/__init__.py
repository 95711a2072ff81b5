"""The documentation: a site of the API from the docstrings, the table in the README, the index of experiments.

    pip install -e ".[docs]" && python -m experiments api --out FOLDER

Writes a page for each public module. A warning of the generator is an error. With `--write` it also renews what is
generated in this checkout: the table between the marks in README.md, and experiments/README.md from the headers of the
experiments; without, it says which of both is out of date, and then exits with 1. Seconds.
"""
