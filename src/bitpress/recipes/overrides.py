"""``--set`` of the commands that have settings instead of a recipe: what ``finetune`` and ``pretrain`` share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bitpress.errors import RecipeError
from bitpress.train import Schedule

SCHEDULE_KEYS = tuple(field.name for field in dataclasses.fields(Schedule))

Settings = TypeVar("Settings", bound=BaseModel)


def checked_overrides(overrides: Mapping[str, Any] | None, own: Sequence[str], of: str = "") -> dict[str, Any]:
    """The overrides, of which every key must be one of ``own`` or of the schedule; a batch size takes the place of
    the default's batch tokens. ``of``: whose settings, for the error.

    Raises:
        RecipeError: an unknown key.
    """
    values = dict(overrides or {})
    known = [*own, *SCHEDULE_KEYS]
    for key in values:
        if key not in known:
            raise RecipeError(f"--set {key}: no such setting{of}; known: {', '.join(known)}")
    if values.get("batch_size") is not None:
        values.setdefault("batch_tokens", None)
    return values


def validated(kind: type[Settings], document: Mapping[str, Any]) -> Settings:
    """``document`` as settings of that kind; RecipeError names a value that is not allowed."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"--set {first['loc'][-1]}: {first['msg']} (found {first.get('input')!r})") from error
