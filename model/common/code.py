"""Identity of what modules do, from their text: it changes with their code, not with their layout or comments."""

import ast
import hashlib
from importlib.util import find_spec
from pathlib import Path


def code_version(*modules: str) -> str:
    """Identity of modules: their code without comments, docstrings and layout. Nothing is imported for it."""
    digest = hashlib.sha256()
    for name in modules:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None, name
        digest.update(ast.unparse(_WithoutTexts().visit(ast.parse(Path(spec.origin).read_bytes()))).encode())
    return digest.hexdigest()[:12]


class _WithoutTexts(ast.NodeTransformer):
    """Removes statements that are only a string: docstrings."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node
