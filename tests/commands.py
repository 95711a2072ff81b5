"""Experiments run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def programs():
    """Variables by which all processes of a run of the tests share the programs that one has compiled."""
    return {
        "JAX_COMPILATION_CACHE_DIR": os.environ["TESTS_PROGRAMS"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def run(*arguments, **variables):
    """Run a command with a user's own settings of JAX: none."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "JDROP_"))}
    environment |= programs()
    command = [sys.executable, "-W", "error", "-m", "experiments", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment | variables)
