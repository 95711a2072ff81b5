"""Rows of the table of measured ratios, each with its target, and their summary."""

import os
import platform
import statistics
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import jax

NONE = "-"


class Target(NamedTuple):
    """What a figure must reach, and what it should."""

    sign: str
    least: float
    aim: float | None = None

    def met(self, value) -> str:
        """Which of them `value` meets: "aim", "yes" (the least) or "no"."""

        def reaches(bound):
            return value >= bound if self.sign == "≥" else value <= bound

        if self.aim is not None and reaches(self.aim):
            return "aim"
        return "yes" if reaches(self.least) else "no"


def at_least(least, aim=None) -> Target:
    return Target("≥", least, aim)


def at_most(least, aim=None) -> Target:
    return Target("≤", least, aim)


def record(what, value, target=None, *, shape=NONE, dtype=NONE, rate=NONE, key=NONE, mode=NONE, ours=None, theirs=None):
    """A row of the table: `value` is the figure that `what` names; `ours` and `theirs` are (name, seconds)."""
    ours, theirs = (_timed(side) for side in (ours, theirs))
    return {
        "what": what,
        "shape": str(shape),
        "dtype": str(dtype),
        "rate": str(rate),
        "key": key,
        "mode": mode,
        "ours": ours[0],
        "ours ms": ours[1],
        "peer": theirs[0],
        "peer ms": theirs[1],
        "figure": value if isinstance(value, str) else rounded(value),
        "at least": f"{target.sign} {target.least:g}" if target else NONE,
        "aim": f"{target.sign} {target.aim:g}" if target and target.aim is not None else NONE,
        "met": target.met(value) if target and _is_number(value) else NONE,
    }


def summary(rows) -> list[dict]:
    """A row for each name of a figure: how many there are, how many met the target, the median and the worst one."""
    groups = {}
    for row in rows:
        groups.setdefault((row["what"], row["at least"], row["aim"]), []).append(row)
    return [
        {"what": what, "at least": least, "aim": aim} | _summary(group, least, aim)
        for (what, least, aim), group in groups.items()
    ]


def _summary(group, least, aim):
    absent = [row["figure"] for row in group if not _is_number(row["figure"])]
    if absent:
        return {"figures": 0} | dict.fromkeys(("met", "aim met", "median"), NONE) | {"worst": absent[0], "where": NONE}
    worst = (max if "≤" in least else min)(group, key=lambda row: row["figure"])
    where = [worst[name] for name in ("shape", "dtype", "rate", "key", "mode", "peer") if worst[name] != NONE]
    return {
        "figures": len(group),
        "met": NONE if least == NONE else sum(row["met"] != "no" for row in group),
        "aim met": NONE if aim == NONE else sum(row["met"] == "aim" for row in group),
        "median": rounded(statistics.median(row["figure"] for row in group)),
        "worst": worst["figure"],
        "where": ", ".join(where),
    }


def rounded(value) -> float:
    return float(f"{value:.4g}")


def machine(modules) -> str:
    """The machine and the versions of what is measured, in a line."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = ", ".join(sorted({device.device_kind for device in jax.devices()} - {"cpu"})) or "no accelerator"
    versions = ", ".join(f"{name} {_version(name)}" for name in modules)
    return f"{model}, {cores} cores; {devices}; Python {platform.python_version()}, {versions}"


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _timed(side):
    if side is None:
        return NONE, NONE
    name, seconds = side
    return name, NONE if seconds is None else rounded(1000 * seconds)


def _is_number(value) -> bool:
    return isinstance(value, (int, float))
