"""Where a table comes from: the command, the commit, the versions, the machine and the time."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

BEGAN = time.perf_counter()
FOLDERS = ("--data-dir", "--out")


def made_by() -> str:
    """One line for the top of a table."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax"))
    return (
        f"Made by `python -m experiments {command(sys.argv[1:])}` at commit {commit()}, with Python "
        f"{platform.python_version()}, {versions}, on {os.cpu_count()} cores of {processor()}, in "
        f"{time.perf_counter() - BEGAN:.0f} s."
    )


def command(arguments) -> str:
    """The arguments as they were given, but for the names of folders, which are of one machine alone."""
    words = list(arguments)
    for i, word in enumerate(words):
        if word in FOLDERS and i + 1 < len(words):
            words[i + 1] = "FOLDER"
        elif word.startswith(tuple(f"{option}=" for option in FOLDERS)):
            words[i] = f"{word.split('=')[0]}=FOLDER"
    return shlex.join(words)


def commit() -> str:
    """The checkout's commit, with a + where files differ from it; unknown without Git."""
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--abbrev=10", "--dirty=+"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
