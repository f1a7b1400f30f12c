"""Dagster's launchpad config, generated from the config dataclasses of `model`: no number stands in two places."""

import dataclasses
import types
import typing
from typing import Any, TypeVar

import dagster as dg
import pydantic

from model.common.config import from_dict

T = TypeVar("T")


def launchpad(cls: type[Any], *, without: tuple[str, ...] = (), defaults: Any = None) -> type[dg.Config]:
    """A Dagster `Config` with the fields, defaults and help texts of dataclass `cls`, except those in `without`.

    `defaults`, an instance of `cls`, gives other defaults.
    """
    hints = typing.get_type_hints(cls)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name in without:
            continue
        factory: Any = field.default_factory
        default: Any = field.default if factory is dataclasses.MISSING else factory()
        if defaults is not None:
            default = getattr(defaults, field.name)
        kind: Any = hints[field.name]
        if typing.get_origin(kind) is tuple:
            kind, default = types.GenericAlias(list, typing.get_args(kind)[:1]), list(default)
        description = field.metadata.get("help", "")
        fields[field.name] = (kind, pydantic.Field(default=default, description=description))
    return pydantic.create_model(f"{cls.__name__}Launchpad", __base__=dg.Config, __doc__=cls.__doc__, **fields)


def to_model(config: dg.Config, cls: type[T]) -> T:
    """The config dataclass that a launchpad's values describe; its own validation runs here."""
    names = {field.name for field in dataclasses.fields(typing.cast(Any, cls))}
    return from_dict(cls, {key: value for key, value in config.model_dump().items() if key in names})
