"""Experiments run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*arguments, **variables):
    """Run a command with a user's own settings of JAX: none, but that the tests' programs are compiled once."""

    def is_kept(name):
        return "_CACHE_" in name or not name.startswith(("JAX_", "XLA_", "JDROP_"))

    environment = {name: value for name, value in os.environ.items() if is_kept(name)}
    command = [sys.executable, "-W", "error", "-m", "experiments", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment | variables)
