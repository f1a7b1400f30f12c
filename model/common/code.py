"""Identity of what modules do, from their text: it changes with their code, not with their layout or comments."""

import hashlib
import tokenize
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

BLOCK = {tokenize.INDENT: "{", tokenize.DEDENT: "}"}
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER}


def code_version(*modules: str) -> str:
    """Identity of what modules do: their code without comments, docstrings and layout. Nothing is imported for it."""
    digest = hashlib.sha256()
    for name in modules:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None, name
        digest.update("".join(_code(Path(spec.origin))).encode())
    return digest.hexdigest()[:12]


def _code(path: Path) -> Iterator[str]:
    """Tokens of a module; a string that begins a statement is a text for people."""
    with tokenize.open(path) as stream:
        is_begun = False
        for token in tokenize.generate_tokens(stream.readline):
            if token.type == tokenize.NEWLINE:
                yield "\n" if is_begun else ""
                is_begun = False
            elif token.type in BLOCK:
                yield BLOCK[token.type]
            elif token.type not in LAYOUT and (is_begun or token.type != tokenize.STRING):
                is_begun = True
                yield token.string
