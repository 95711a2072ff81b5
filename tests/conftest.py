"""Every test runs on eight CPU devices, with strict promotion, and with warnings as errors (pyproject.toml)."""

import os
import signal

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send themselves.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(scope="session", autouse=True)
def _programs(tmp_path_factory):
    """A folder for the programs that the tests' own processes compile, shared by all workers of one run."""
    folder = tmp_path_factory.getbasetemp()
    os.environ["TESTS_PROGRAMS"] = str((folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "programs")


collect_ignore = ["process.py"]  # a program, which the search for doctests would run
