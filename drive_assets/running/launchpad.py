"""Base of the configs that the launchpad shows: each option tells its default and range, and is checked at launch."""

import json
from typing import Any

import annotated_types as limits
import dagster as dg
from dagster._config.errors import PostProcessingError
from pydantic import ValidationError
from pydantic.fields import FieldInfo


class Launchpad(dg.Config):
    """Stands last among the bases: `class LabelLaunchpad(LabelConfig, Launchpad)`.

    Dagster itself knows the kinds of options, not their ranges: a wrong value would end the run with a traceback. Here
    it is refused when a run is launched, and by `dg.validate_run_config`.
    """

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        for field in cls.model_fields.values():
            field.description = _described(field)
        schema: Any = cls.to_config_schema().as_field().config_type
        # Dagster has one schema object for equal sets of options, so this is the one that the asset gets.
        schema.post_process = cls._checked

    @classmethod
    def _checked(cls, values: dict[str, Any]) -> dict[str, Any]:
        try:
            cls(**values)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()]
            raise PostProcessingError("; ".join(problems)) from None
        except ValueError as error:
            raise PostProcessingError(str(error)) from None
        return values


def _described(field: FieldInfo) -> str:
    """The field's description, its range and its default."""
    words = _range(field)
    if not field.is_required() and not isinstance(field.default, dg.Config):
        words.append(f"default {json.dumps(field.default)}")
    text = field.description or ""
    return f"{text} ({'; '.join(words)})" if words else text


def _range(field: FieldInfo) -> list[str]:
    words = []
    for limit in field.metadata:
        if isinstance(limit, limits.Ge):
            words.append(f"at least {limit.ge:g}")
        elif isinstance(limit, limits.Gt):
            words.append(f"above {limit.gt:g}")
        elif isinstance(limit, limits.Le):
            words.append(f"at most {limit.le:g}")
        elif isinstance(limit, limits.Lt):
            words.append(f"below {limit.lt:g}")
        elif isinstance(limit, limits.MultipleOf):
            words.append(f"a multiple of {limit.multiple_of:g}")
    return words
