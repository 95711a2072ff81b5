"""What one run of several, and one process of several, does alone."""

import contextlib
import os

import jax
import numpy as np
from jax.experimental import multihost_utils

try:
    import fcntl
except ImportError:  # where there is no POSIX, two runs in one folder go unnoticed
    fcntl = None


class CheckpointError(OSError, ValueError):
    """A checkpoint can't be written or read, or is another run's."""


@contextlib.contextmanager
def writing_to(folder):
    """Say of what the system refuses that it is the folder's."""
    try:
        yield
    except BlockingIOError as error:
        raise CheckpointError(
            f"checkpoint_dir {folder} is in use by another run: wait until that ends, or give another folder."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"checkpoint_dir {folder} can't be written to ({error}): give a folder that can."
        ) from error


@contextlib.contextmanager
def locked(folder):
    """Make a folder, and hold it against other runs, until this one ends or its process dies."""
    descriptor = None

    def hold():
        nonlocal descriptor
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            lock(descriptor, wait=False)
        except BlockingIOError:
            os.close(descriptor)
            raise

    with writing_to(folder):
        by_first_process(hold)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def lock(descriptor, wait=True):
    """Lock an open file or folder, where the system can; without `wait` a BlockingIOError says that it is locked."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:  # some network file systems have no locks
        pass


def by_first_process(action):
    """Let the first process do something while the others wait; an error there is an error in all of them."""
    error = None
    if jax.process_index() == 0:
        try:
            action()
        except Exception as caught:
            error = caught
    if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.array(error is not None)):
        error = error or OSError("the first process has the reason")
    if error is not None:
        raise error
