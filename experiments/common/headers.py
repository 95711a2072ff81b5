"""The experiments there are, by their headers."""

import ast
from pathlib import Path

FOLDER = Path(__file__).parent.parent


def experiments() -> dict[str, str]:
    """Name and header of every experiment: a package with a `main.py`."""
    return {
        path.parent.name: ast.get_docstring(ast.parse((path.parent / "__init__.py").read_text()))
        for path in sorted(FOLDER.glob("*/main.py"))
    }
