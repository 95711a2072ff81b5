"""The checkpoints of a run."""

import contextlib

import jax

from jdrop.training._first import CheckpointError, locked
from jdrop.training._resume import contents, go_on
from jdrop.training._storage import as_folder, checkpoint_steps, newest, prepare, save


class Checkpoints:
    """A folder for the checkpoints of a run: when they are written, how many stay, and where the run goes on."""

    def __init__(self, folder, every, keep, resume, source, settings):
        self.folder, self.every, self.keep, self.resume = as_folder(folder), every, keep, resume
        self.source, self.settings = source, settings
        self.saved = None  # the step of the last one
        self.journal = self.folder / ".log"  # names the lines of the log since then

    @contextlib.contextmanager
    def opened(self, run, stopping, end):
        """Hold the folder, and go on from its newest checkpoint: (the log's path, its length) there, or None."""
        with locked(self.folder):  # before anything there is removed, which another run may be writing
            prepare(self.folder)
            if not self.resume and checkpoint_steps(self.folder):
                raise CheckpointError(
                    f"checkpoint_dir {self.folder} holds checkpoints: write resume=True to go on with that run, or "
                    "give another."
                )
            found, log = newest(self.folder), None
            if found is not None:
                go_on(run, stopping, self.source, self.settings, *found, end)
                log = found[1]["log"]
            self.saved = run.step
            yield log

    def save(self, run, stopping, log, ended):
        """Save the run where it ends, and at every `every` steps, but not twice at the same."""
        if self.saved != run.step and (ended or run.step % self.every == 0):
            tree, about = contents(run, stopping, self.source, self.settings, log)
            save(self.folder, run.step, tree, about, self.keep)
            self.saved = run.step
            if jax.process_index() == 0:
                self.journal.unlink(missing_ok=True)
