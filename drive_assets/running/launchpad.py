"""Base of the configs that the launchpad shows: each option states its range and default, and is checked at launch."""

import json
from dataclasses import astuple
from typing import Any

import annotated_types as limits
import dagster as dg
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from drive_assets.running.dagster_private import PostProcessingError

LIMITS = {
    limits.Ge: "at least",
    limits.Gt: "above",
    limits.Le: "at most",
    limits.Lt: "below",
    limits.MultipleOf: "a multiple of",
}


class Launchpad(dg.Config):
    """Last among the base classes: `class LabelLaunchpad(LabelConfig, Launchpad)`.

    Dagster checks the types of options, not their ranges: an invalid value would end the run with a traceback. Here it
    is refused when a run is launched, and by `dg.validate_run_config`.
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
            problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
            raise PostProcessingError("; ".join(problems)) from None
        except ValueError as error:
            raise PostProcessingError(str(error)) from None
        return values


def _described(field: FieldInfo) -> str:
    """The field's description with its range and default."""
    facts = [f"{LIMITS[type(limit)]} {astuple(limit)[0]:g}" for limit in field.metadata if type(limit) in LIMITS]
    if not field.is_required() and not isinstance(field.default, dg.Config):
        facts.append(f"default {json.dumps(field.default)}")
    text = field.description or ""
    return f"{text} ({'; '.join(facts)})" if facts else text


def fixed(resource: dg.ConfigurableResource[Any]) -> dg.ResourceDefinition:
    """A resource that the launchpad cannot configure: a run chooses no data root, job script or store of its own."""

    def create(context: dg.InitResourceContext) -> dg.ConfigurableResource[Any]:
        resource.setup_for_execution(context)
        return resource

    return dg.ResourceDefinition(create, config_schema={})
