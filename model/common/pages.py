"""Self-contained HTML pages: templates filled with results, pictures included, no scripts, nothing from elsewhere."""

import base64
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

UNDEFINED = "undefined"


def render(package: str, template: str, **values: Any) -> str:
    """Render a template in a package's folder `templates`; it may extend `base.html`, which all pages share."""
    return _environment(package).get_template(template).render(**values)


@cache
def _environment(package: str) -> Environment:
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("model.common")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "share": share, "picture": picture}
    return environment


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` digits after the point."""
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def share(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.1%}"


def picture(content: bytes) -> str:
    """A PNG or JPEG file's bytes as the address of an <img>."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
