"""What a checkpoint says of its run, as JSON, with a SHA-256 of every file: written, and read as if by a stranger."""

import hashlib
import json
import stat
from pathlib import PurePosixPath

MANIFEST = "run.json"


def write_record(folder, about):
    """Write what a run says of itself, and hashes of the files that the folder then has."""
    files = {str(path.relative_to(folder)): _digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    run = {"files": files, **about}
    (folder / MANIFEST).write_text(json.dumps({"sha256": _text_digest(run), "run": run}), encoding="utf-8")


def read_record(folder) -> dict:
    """What `write_record` wrote, of a folder in which every file is as it was then.

    Raises:
      OSError, ValueError: a file is missing, changed or none of the folder's own; a record that says something else
        than a run's, such as another step than the folder's name.
    """
    try:
        written = json.loads(_own(folder, MANIFEST).read_text(encoding="utf-8"))
        run = written["run"]
        if _text_digest(run) != written["sha256"]:
            raise ValueError(f"{MANIFEST} was changed")
        for name, digest in run["files"].items():
            if _digest(_own(folder, name)) != digest:
                raise ValueError(f"{name} was changed")
        _check(run)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{MANIFEST} is no record of a run ({type(error).__name__}: {error})") from None
    if str(run["step"]) != folder.name:
        raise ValueError(f"{MANIFEST} is of step {run['step']}")
    return run


def _own(folder, name):
    """A regular file in a folder: not one that a link or a path leads to, nor a device that never ends."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts:
        raise ValueError(f"{name} is not in the folder")
    path = folder
    for part in place.parts:
        path = path / part
        if path.is_symlink():
            raise ValueError(f"{name} is a link")
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{name} is no file")
    return path


def _check(run):
    """Raise unless every value is of the kind that a run writes."""
    kinds = {
        "step": _whole,
        "start": _whole,
        "seeds": lambda value: isinstance(value, list) and all(map(_whole, value)),
        "history": lambda value: all(_text(name) and isinstance(of, list) and _reals(of) for name, of in value.items()),
        "metrics": lambda value: all(_text(name) and of in ("float32", "float64") for name, of in value.items()),
        "evaluated": _flag,
        "patience": lambda value: value is None or _whole(value),
        "keep_best": _flag,
        "has_kept": _flag,
        "best_loss": _reals,
        "waited": _reals,
        "log": lambda value: value is None or (_text(value[0]) and _whole(value[1])),
        "leaves": lambda value: all(_is_description(of) for of in value.values()),
        "alike": lambda value: isinstance(value, dict),
        "source": lambda value: value is None or isinstance(value, dict),
    }
    wrong = [name for name, is_right in kinds.items() if not is_right(run[name])]
    if wrong:
        raise ValueError(f"{MANIFEST} has a {wrong[0]} that no run writes")


def _whole(value):
    return type(value) is int and 0 <= value < 2**63


def _flag(value):
    return type(value) is bool


def _reals(value):
    return all(map(_reals, value)) if isinstance(value, list) else type(value) in (int, float)


def _text(value):
    return isinstance(value, str)


def _is_description(leaf):
    sizes = leaf["shape"]
    return isinstance(leaf["dtype"], str) and isinstance(sizes, list) and all(type(n) is int and n >= 0 for n in sizes)


def _text_digest(run):
    return hashlib.sha256(json.dumps(run).encode()).hexdigest()


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
