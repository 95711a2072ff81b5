"""Imports only point down the house, and the README does what it says."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jdrop
from experiments.api.main import generated, modules, names

ROOT = Path(__file__).parent.parent
FLOORS = {
    "_checks": 0,
    "_compat": 0,
    "_keys": 0,
    "_progress": 0,
    "_types": 0,
    "_accelerate": 1,
    "masks": 0,
    "functional": 1,
    "schedules": 1,
    "weights": 2,
}
FLOORS |= {"_flax": 2, "linen": 3, "nnx": 3, "training": 3, "mc": 3}
FILES = sorted((ROOT / "jdrop").rglob("*.py"))


def room(path):
    return path.relative_to(ROOT / "jdrop").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    if path == ROOT / "jdrop" / "__init__.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jdrop"):
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("jdrop")]
        for name in names:
            other = name.split(".")[1]
            assert (
                other == room(path) or FLOORS[other] < FLOORS[room(path)] or (FLOORS[other] == FLOORS[room(path)] == 0)
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_one_idea(path):
    assert len(path.read_text().splitlines()) <= 300


def test_an_experiment_uses_the_public_api_and_no_other_experiment():
    for path in (ROOT / "experiments").rglob("*.py"):
        own = path.relative_to(ROOT / "experiments").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith("jdrop"), path
                if node.module.startswith("experiments."):
                    assert node.module.split(".")[1] in ("common", own), path


def test_completion_shows_the_api_and_nothing_else():
    for module in modules():
        for name in names(module):
            thing = getattr(module, name)
            if inspect.ismodule(thing):
                assert thing in modules(), (module, name)
            else:
                assert inspect.isclass(thing) or inspect.isfunction(thing) or name == "STREAM_VERSION", (module, name)
                assert inspect.getmodule(thing) is None or inspect.getmodule(thing).__name__.startswith("jdrop.")
    assert inspect.isfunction(jdrop.dropout)
    assert not hasattr(jdrop.linen, "dropout")


def public_functions():
    for module in modules():
        for name in names(module):
            if inspect.isfunction(getattr(module, name)):
                yield pytest.param(getattr(module, name), id=f"{module.__name__}.{name}")


@pytest.mark.parametrize("function", list(public_functions()))
def test_a_public_function_has_types_and_says_what_it_takes_returns_and_raises(function):
    signature, text = inspect.signature(function), inspect.getdoc(function)
    assert signature.return_annotation is not signature.empty
    for name, parameter in signature.parameters.items():
        assert parameter.annotation is not parameter.empty, name
        assert re.search(rf"^  (.*, )?\*{{0,2}}{name}(, .*)?: ", text, re.M), name
    assert re.match(r"[A-Z].*\.\n", text + "\n")
    for section in ("Args:", "Example"):
        assert f"\n{section}" in text, section


def test_what_is_private_to_jax_is_in_one_place():
    for path in FILES:
        if path.name != "_compat.py":
            private = r"jax\._src|jax\.interpreters import .*xla|manual_axis_type|module_context"
            assert not re.findall(private, path.read_text()), path


@pytest.mark.slow
def test_an_import_takes_no_extra():
    code = "import sys, jdrop; print(*{'sklearn', 'matplotlib', 'scipy.stats', 'tensorboardX'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_what_is_generated_is_up_to_date():
    for path, text in generated().items():
        assert path.read_text() == text, "python -m experiments api --write"


README = (ROOT / "README.md").read_text()


def test_the_readme_is_for_newcomers():
    assert len(README.splitlines()) <= 200
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in link or (ROOT / link).exists(), link


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_readme_has_both_examples_of_at_most_20_lines():
    assert sum("flax.linen" in block for block in BLOCKS) == 1
    assert sum("from flax import nnx" in block for block in BLOCKS) == 1
    assert all(len(block.strip().splitlines()) <= 20 for block in BLOCKS)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_readme_s_examples_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_the_readme_has_both_commands():
    assert 'pip install -e ".[experiments]" && python -m experiments digits' in README
    assert 'pip install -e ".[test]" && pytest' in README
