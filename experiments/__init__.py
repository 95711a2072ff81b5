"""Experiments on jdrop's public API: `python -m experiments NAME`."""


class MissingFiles(Exception):
    """A folder without the files of a data set: which are missing, where they were sought, and what to do."""

    def __init__(self, missing, folder, advice):
        looked = "no folder was named" if folder is None else f"looked in {folder}"
        by = "by --data-dir or the environment variable JDROP_DATA."
        super().__init__(f"{missing} missing ({looked}).\n{advice} {by}")
