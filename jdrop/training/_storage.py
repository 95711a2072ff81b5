"""Checkpoints on disk: written by orbax, whole or not there, and checked to the byte when they are read.

A checkpoint is the folder named after its step: the arrays as orbax writes them, and `run.json` with everything else
and a SHA-256 of every file. It is written under another name and renamed, so that a folder with a step's name is whole
whenever the process is killed; the hashes find what was damaged later.
"""

import contextlib
import errno
import itertools
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jdrop.training._first import CheckpointError, by_first_process, writing_to
from jdrop.training._leaves import data_of, is_key, with_data
from jdrop.training._record import MANIFEST, read_record, write_record

ARRAYS, SAVING, BROKEN = "arrays", ".saving-", ".broken"


def as_folder(path) -> Path:
    """The absolute path of a folder on this machine's file system."""
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise TypeError(f"checkpoint_dir is {path!r}, but the name of a folder is needed: checkpoint_dir='run'.")
    if "://" in str(path):
        raise ValueError(
            f"checkpoint_dir is {str(path)!r}, but a folder of a file system is needed: mount it, and write where."
        )
    return Path(path).expanduser().absolute()


def checkpoint_steps(folder) -> list[int]:
    """The steps of the checkpoints in a folder, ascending; whatever else is there is somebody else's."""
    return sorted(
        int(path.name)
        for path in folder.iterdir()
        if path.name.isascii()
        and path.name.isdecimal()
        and len(path.name) < 19
        and path.name == str(int(path.name))
        and ((path / MANIFEST).exists() or (path / ARRAYS).exists())
    )


def prepare(folder):
    """See that a folder can be written to, and remove what a killed process left half written."""

    def begin():
        for path in [path for path in folder.iterdir() if path.name.startswith(SAVING)]:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        probe = folder / f"{SAVING}probe"
        probe.mkdir()
        probe.rmdir()

    with writing_to(folder):
        by_first_process(begin)


@contextlib.contextmanager
def _plain(folder):
    """A path to a folder that no library takes for a pattern, whatever the folder is called."""
    if not set("*?[]{}\\") & set(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / "folder"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def save(folder, step, tree, about, keep):
    """Write the checkpoint of a step, then remove all but the newest `keep` (None: keep all).

    Args:
      folder: an absolute path on a file system that all processes share.
      step: the step's number.
      tree: arrays; typed keys too.
      about: everything else, as JSON has it.

    Raises:
      CheckpointError: the disk is full or read-only. No part of the checkpoint is left, and those before it stay.
    """
    target, temporary = folder / str(step), folder / f"{SAVING}{step}"

    def begin():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()

    def finish():
        described = {name: _description(leaf) for name, leaf in _named(tree).items()}
        write_record(temporary, {"leaves": described, **about})
        for path in [*temporary.rglob("*"), temporary]:
            _sync_to_disk(path)
        os.rename(temporary, target)
        _sync_to_disk(folder)

    def remove_old():
        for old in checkpoint_steps(folder)[:-keep]:
            # Renamed first, since a folder that is half removed must not look like a checkpoint.
            shutil.rmtree((folder / str(old)).rename(folder / f"{SAVING}removed-{old}"), ignore_errors=True)

    try:
        by_first_process(begin)
        # Empty arrays have nothing to be saved, and orbax does not take them.
        arrays = {name: data_of(leaf) for name, leaf in _named(tree).items() if leaf.size}
        with _plain(temporary) as path, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(path / ARRAYS, args=ocp.args.PyTreeSave(arrays))
        _read(temporary, arrays)  # what can't be read again was not saved
        by_first_process(finish)
    except Exception as error:  # orbax raises what its parts raise: OSError, ValueError, RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        older = checkpoint_steps(folder) if folder.is_dir() else []
        kept = f"that of step {older[-1]} is whole and will be used" if older else "there is no earlier one"
        raise CheckpointError(
            f"the checkpoint of step {step} could not be saved in {folder} ({error}); {kept}. "
            f"{'Make room' if _is_full(error) else 'See to the cause'}, or copy the folder and give the copy's name, "
            "and run the same again to resume."
        ) from error
    if keep is not None:
        by_first_process(remove_old)


def newest(folder):
    """The newest whole checkpoint as (path, what `save` was told about it), or None where there are none.

    Damaged ones are set aside.

    Raises:
      CheckpointError: there are checkpoints, but none is whole.
    """
    steps, broken, found = checkpoint_steps(folder), [], None
    for step in reversed(steps):
        try:
            found = folder / str(step), read_record(folder / str(step))
            break
        except (OSError, ValueError) as error:
            broken.append((step, error))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"looked through {folder}")  # before anything there is renamed
    damage = "; ".join(f"{folder / str(step)}: {error}" for step, error in broken)
    if broken and found is None:
        raise CheckpointError(
            f"no checkpoint in {folder} is whole ({damage}): give another checkpoint_dir to start anew."
        )
    if broken and found is not None:
        warnings.warn(
            f"a damaged checkpoint is set aside with {BROKEN!r} after its name ({damage}); training resumes from "
            f"{found[0]}.",
            stacklevel=3,
        )

        def set_aside():
            for step, _ in broken:
                names = itertools.chain([BROKEN], (f"{BROKEN}-{n}" for n in itertools.count(2)))
                paths = (folder / f"{step}{name}" for name in names)
                aside = next(path for path in paths if _is_free(path))
                shutil.rmtree(aside, ignore_errors=True)
                (folder / str(step)).rename(aside)

        by_first_process(set_aside)
    return found


def restore(path, about, like):
    """The tree saved at `path`, laid out over devices as `like`.

    Raises:
      CheckpointError: the tree has other arrays than `like`, or keys of another PRNG implementation.
    """
    leaves, saved = _named(like), about["leaves"]
    wanted = dict.fromkeys(saved) | {name: _description(leaf) for name, leaf in leaves.items()}
    differences = [
        f"{name} is {_words(saved.get(name))} there and {_words(here)} here"
        for name, here in wanted.items()
        if saved.get(name) != here
    ]
    if differences:
        raise CheckpointError(
            f"the checkpoint {path} is another model's, optimizer's or kind of key's: {'; '.join(differences[:5])}"
            f"{' ...' if len(differences) > 5 else ''}. Resume with the state that the run began with, or give another "
            "checkpoint_dir."
        )
    try:
        restored = _read(path, {name: data_of(leaf) for name, leaf in leaves.items() if leaf.size})
    except Exception as error:  # orbax's own
        raise CheckpointError(
            f"the checkpoint {path} can't be read ({error}): move it away, to go on from the one before."
        ) from error

    def place(name, leaf):
        if not leaf.size:
            return leaf
        # orbax commits what it restores to its devices, for which a step would be compiled again.
        array = restored[name] if leaf.committed else jnp.array(np.asarray(restored[name]))
        return with_data(leaf, array)

    return jax.tree.unflatten(jax.tree.structure(like), [place(name, leaf) for name, leaf in leaves.items()])


def _read(folder, like):
    """The arrays of a checkpoint, laid out as those."""
    targets = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in like.items()}
    with _plain(folder) as path, ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        return checkpointer.restore(
            path / ARRAYS,
            args=ocp.args.PyTreeRestore(targets, restore_args=ocp.checkpoint_utils.construct_restore_args(targets)),
        )


def _is_free(path) -> bool:
    """Whether a damaged checkpoint may have this name: one before it may have had it."""
    return not os.path.lexists(path) or (path.is_dir() and not path.is_symlink())


def _is_full(error) -> bool:
    """Whether a disk was full: the system's number says so, or what a library has made of its words."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _named(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _description(leaf):
    kind = f"{jax.random.key_impl(leaf)} key" if is_key(leaf) else str(leaf.dtype)
    return {"shape": list(leaf.shape), "dtype": kind}


def _words(description):
    return "missing" if description is None else f"{description['dtype']}{description['shape']}"


def _sync_to_disk(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
