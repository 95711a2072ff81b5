"""Imports only point down the house, and the README does what it says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {"_checks": 0, "_compat": 0, "_keys": 0, "masks": 0, "functional": 1, "weights": 1}
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


README = (ROOT / "README.md").read_text()
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
