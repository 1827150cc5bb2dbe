"""The JSON Schemas of the package, and which command prints a document of which."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parents[2] / "src/bootc/cli/schemas"

#: The schema of each command that prints JSON, by the words of the command.
SCHEMA_OF = {
    "status": "host",
    "upgrade --progress-fd": "progress",
    "etc diff": "etc-diff",
    "addon list": "addon-list",
    "image list": "image-list",
    "container inspect": "container-inspect",
    "container compute-composefs-digest": "digest-explanation",
    "internals features": "features",
    "internals cfs images": "cfs-images",
    "internals cfs fsck": "cfs-fsck",
    "internals cfs oci images": "cfs-oci-images",
    "internals cfs oci inspect": "cfs-oci-inspect",
    "internals cfs oci layer": "cfs-oci-layer",
    "internals cfs oci fsck": "cfs-oci-fsck",
}


@cache
def schema(name: str) -> dict[str, Any]:
    """Return a schema by the name of its file."""
    value: dict[str, Any] = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))
    return value


@cache
def _validator(name: str) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema(name))
    return Draft202012Validator(schema(name))


def problems(name: str, document: object) -> list[str]:
    """Return what in a document does not fit a schema, with the place of each problem."""
    found = _validator(name).iter_errors(document)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def is_valid(name: str, document: object) -> bool:
    """Tell whether a document fits a schema. Faster than :func:`problems`."""
    return bool(_validator(name).is_valid(document))


def check(name: str, printed: str) -> Any:
    """Fail unless a text is JSON that fits a schema; return its value."""
    document = json.loads(printed)
    assert problems(name, document) == []
    return document
