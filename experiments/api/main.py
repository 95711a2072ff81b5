"""The site, and what is generated in this checkout."""

import importlib
import inspect
import pkgutil
import re
import warnings
from pathlib import Path

import jdrop
from experiments.common.headers import FOLDER, experiments

ROOT = FOLDER.parent
MARKS = "<!-- the table is generated: python -m experiments api --write -->\n", "\n<!-- end of the table -->"


def add_options(parser):
    parser.add_argument("--write", action="store_true", help="renew README.md and experiments/README.md")


def run(args):
    wanted = generated()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if args.write:
            path.write_text(wanted[path])
        print(f"{path.relative_to(ROOT)} {'was renewed' if args.write else 'is out of date: add --write'}")
    site(args.out)
    print(f"wrote a page for each of {len(modules())} modules in {args.out}")
    return 1 if stale and not args.write else 0


def site(out):
    import pdoc

    for module in modules():
        module.__all__ = names(module)  # else pdoc leaves out what a module has from its underscored files
    pdoc.render.configure(docformat="google", footer_text="jdrop")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Error parsing type annotation .*ArrayTree")  # of optax, in Flax's own state
        warnings.filterwarnings("ignore", "Error parsing type annotation .*jdrop.linen.*Attention")  # Flax's fields'
        pdoc.pdoc("jdrop", output_directory=out)


def modules() -> list:
    """Every public module."""
    found = (each.name for each in pkgutil.walk_packages(jdrop.__path__, "jdrop."))
    return [jdrop, *(importlib.import_module(name) for name in found if "._" not in name)]


def names(module) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")]


def generated() -> dict[Path, str]:
    """What is generated in this checkout, as it should be."""
    readme = (ROOT / "README.md").read_text()
    before, rest = readme.split(MARKS[0])
    return {
        ROOT / "README.md": before + MARKS[0] + table() + MARKS[1] + rest.split(MARKS[1])[1],
        FOLDER / "README.md": index(),
    }


def table() -> str:
    """A row for each name of jdrop itself but the family, which has a table by hand, and one for each module below."""
    rows = ["| | |", "|---|---|"]
    for name in names(jdrop):
        thing = getattr(jdrop, name)
        if inspect.isfunction(thing) and name not in family():
            rows.append(f"| `{name}{_signature(thing)}` | {_summary(thing)} |")
    for module in modules()[1:]:
        inside = [name for name in names(module) if callable(getattr(module, name))]
        if inside and any(not hasattr(jdrop, name) for name in inside):
            rows.append(f"| `{module.__name__}` | {_summary(module)} {', '.join(f'`{name}`' for name in inside)} |")
    return "\n".join(rows)


def family() -> set[str]:
    """The kinds of dropout that the README compares: those of a paper of their own, and what belongs to them."""
    readme = (ROOT / "README.md").read_text().split("## The family")[1].split("\n## ")[0]
    return set(re.findall(r"`(\w+)`", readme))


def _signature(function) -> str:
    """Without types, and without what is given by name."""
    parameters = inspect.signature(function).parameters.values()
    shown = [str(each.replace(annotation=each.empty)) for each in parameters if each.kind != each.KEYWORD_ONLY]
    return f"({', '.join([*shown, '...'] if len(shown) < len(parameters) else shown)})"


def _summary(thing) -> str:
    return thing.__doc__.splitlines()[0].replace("|", "\\|")


def index() -> str:
    """A section for each experiment: its header, where its results are, and its pictures."""
    parts = [
        "# Experiments",
        "",
        "Generated from the headers by `python -m experiments api --write`. A run writes into `runs/NAME`, which git "
        "ignores, or where `--out` says. The results here were made on two cores of an AMD EPYC server, those of "
        "`accelerators` compiled and not run; their masks are of stream version 2, but in `articles`, `crash_test` and "
        "`mnist` of version 1 (what follows from them is the same but for chance).",
    ]
    for name, header in experiments().items():
        first, _, rest = header.partition("\n")
        parts += ["", f"## {name}", "", first, "", "```text", rest.strip("\n"), "```"]
        results = sorted(path.name for path in (FOLDER / name / "results").glob("*"))
        if results:
            links = ", ".join(f"[{file}]({name}/results/{file})" for file in results if not file.endswith(".csv"))
            parts += ["", f"Results: {links}"]
        for picture in (file for file in results if file.endswith(".png")):
            parts += ["", f"![{name}: {picture.removesuffix('.png')}]({name}/results/{picture})"]
    return "\n".join(parts) + "\n"
