"""Tables as text, CSV and Markdown."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """The mean of one number a seed, and its standard error."""

    mean: float
    error: float

    def __str__(self):
        places = max(4, -math.floor(math.log10(self.error))) if self.error > 0 else 4  # so that an error is seen
        return f"{self.mean:.{places}f} ± {self.error:.{places}f}"


def estimate(values) -> Estimate:
    values = np.asarray(values, np.float64)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def save_table(rows: list[dict], out: Path, name: str, preface: str = "") -> str:
    """Write `rows` as `name`.csv and, after `preface`, `name`.md in the folder `out`, and return the Markdown.

    An `Estimate` takes two columns of the CSV, its mean and its standard error.
    """
    out.mkdir(parents=True, exist_ok=True)
    with open(out / f"{name}.csv", "w", newline="") as file:
        flat = [_flat(row) for row in rows]
        writer = csv.DictWriter(file, list(flat[0]), restval="-", lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
    cells = [list(rows[0]), *([str(value).replace("|", "\\|") for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    text = "\n".join([*([preface, ""] if preface else []), *lines])
    (out / f"{name}.md").write_text(text + "\n")
    return text


def _flat(row):
    flat = {}
    for column, value in row.items():
        if isinstance(value, Estimate):
            flat |= {column: value.mean, f"{column} standard error": value.error}
        else:
            flat[column] = value
    return flat
