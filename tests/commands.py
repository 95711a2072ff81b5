"""Experiments run as a user runs them."""

import contextlib
import io
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
SIMPLE = ""  # flags for simpler programs that are optimised
if version("jaxlib").startswith("0.10."):  # a flag that XLA does not know ends the process, and it knows them no more
    SIMPLE = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    SIMPLE += " --xla_cpu_prefer_vector_width=128"
CHEAP = f"--xla_backend_optimization_level=0 {SIMPLE}"  # which halves the time that XLA compiles


def run(*arguments, **variables):
    """Run a command with a user's own settings of JAX: none, but that compiling takes less, as it takes the most."""

    def is_kept(name):
        return "_CACHE_" in name or not name.startswith(("JAX_", "XLA_", "JDROP_"))

    environment = {name: value for name, value in os.environ.items() if is_kept(name)}
    environment["XLA_FLAGS"] = CHEAP
    command = [sys.executable, "-W", "error", "-m", "experiments", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment | variables)


def refused(*arguments) -> tuple[int, str]:
    """The status of a command that ends before its work begins, in this process, and what it says of that."""
    from experiments.__main__ import main  # not above: JAX is imported when its settings are made

    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
    return status, said.getvalue()
