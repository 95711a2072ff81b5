"""Every test runs on eight CPU devices, with strict promotion, and with warnings as errors (pyproject.toml)."""

import gc
import os
import shutil
import signal
import tempfile

import pytest
from commands import CHEAP

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["MPLBACKEND"] = "Agg"

# Tracing makes so many objects that the search for garbage is a good part of the time.
gc.set_threshold(200_000, 20, 100)

collect_ignore = ["process.py"]  # a program, which the search for doctests would run


def pytest_sessionfinish():
    gc.freeze()  # as it ends, pytest collects garbage five times, which takes many seconds of so many objects


def pytest_collection_modifyitems(items):
    for item in items:
        if isinstance(item, pytest.DoctestItem):  # compiles for itself alone what the tests compile too
            item.add_marker(pytest.mark.slow)


def pytest_configure(config):
    # The quick tier lets XLA optimise less, since compiling is most of its time. The slow one, which has points of the
    # same matrices, runs what users run.
    quick = config.getoption("markexpr") == "not slow"
    config.option.doctestmodules &= not quick  # all of them are slow, so that none needs to be found
    flags = f"--xla_force_host_platform_device_count=8 {CHEAP if quick else ''}"
    if flags not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    # All processes of a run share what one has compiled, also those that a test starts.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jdrop-tests-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
