"""Identity of what modules do, from their text: it changes with their code, not with their layout or comments."""

import ast
import hashlib
from importlib.util import find_spec
from pathlib import Path


def code_version(*modules: str) -> str:
    """Identity of modules, or of all in a package: their code without comments, docstrings and layout.

    No module is imported.
    """
    digest = hashlib.sha256()
    for name in modules:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None, name
        files = (
            [Path(spec.origin)] if spec.submodule_search_locations is None else Path(spec.origin).parent.glob("*.py")
        )
        for path in sorted(files):
            digest.update(ast.unparse(_WithoutTexts().visit(ast.parse(path.read_bytes()))).encode())
    return digest.hexdigest()[:12]


class _WithoutTexts(ast.NodeTransformer):
    """Removes statements that are only a string: docstrings."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node
