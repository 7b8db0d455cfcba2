"""The crash points, as the source has them: every function decorated with `seam` has two. Nobody keeps a list."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent


class Seam(NamedTuple):
    """A decorated function: its points' common name, and where it stands."""

    name: str
    file: str
    line: int

    @property
    def points(self) -> tuple[str, str]:
        """Before it begins, and after it returned."""
        return f"{self.name}:before", f"{self.name}:after"


def functions(path: Path) -> Iterator[ast.AsyncFunctionDef | ast.FunctionDef]:
    """Every function and method in that file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
            yield node


def is_seam(function: ast.AsyncFunctionDef | ast.FunctionDef) -> bool:
    """Whether the function has the decorator."""
    return any(isinstance(one, ast.Name) and one.id == "seam" for one in function.decorator_list)


def list_seams(root: Path = ROOT) -> tuple[Seam, ...]:
    """All seams of the package, sorted; ValueError if two would share a name."""
    found: dict[str, Seam] = {}
    for path in sorted((root / "aglowd").rglob("*.py")):
        for function in filter(is_seam, functions(path)):
            seam = Seam(f"{path.stem}.{function.name.lstrip('_')}", str(path.relative_to(root)), function.lineno)
            if seam.name in found:
                raise ValueError(f"{seam.file}:{seam.line} and {found[seam.name].file} both name {seam.name}")
            found[seam.name] = seam
    return tuple(found[name] for name in sorted(found))


def list_points(root: Path = ROOT) -> tuple[str, ...]:
    """The names of all crash points."""
    return tuple(point for seam in list_seams(root) for point in seam.points)
