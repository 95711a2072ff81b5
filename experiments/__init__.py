"""Experiments on jdrop's public API: `python -m experiments NAME`."""


class MissingFiles(Exception):
    """A folder without the files of a data set; the message says which to put where."""
