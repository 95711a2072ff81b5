"""Tables as text, CSV and Markdown."""

import csv
from pathlib import Path


def mean_and_error(values) -> str:
    """`mean ± standard error of the mean` of one number a seed."""
    n = len(values)
    mean = sum(values) / n
    error = (sum((value - mean) ** 2 for value in values) / (n - 1) / n) ** 0.5 if n > 1 else float("nan")
    return f"{mean:.4f} ± {error:.4f}"


def save_table(rows: list[dict], out: Path, name: str) -> str:
    """Write `rows` as `name`.csv and `name`.md in the folder `out`, and return the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    columns = list(rows[0])
    with open(out / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    cells = [columns, *([str(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    text = "\n".join(lines)
    (out / f"{name}.md").write_text(text + "\n")
    return text
