"""What upstream's documents have, as far as programs read it: the host and the progress lines.

Made from the specification of both formats: the keys that are always there, those that may be
absent, and the types of values. Objects may have no other keys, except where ``MORE`` says that
pybootc adds some.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
NUMBER = {"type": "integer", "minimum": 0}
TRUTH = {"type": "boolean"}
NOTHING = {"type": "null"}
DIGITS_64 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
#: Of SHA-256 or SHA-512.
VERITY = {"type": "string", "pattern": "^([0-9a-f]{64}){1,2}$"}


def obj(properties: dict[str, Any], *absent: str) -> dict[str, Any]:
    """Return the schema of an object with these keys, of which ``absent`` may be absent."""
    required = [key for key in properties if key not in absent]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def optional(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, NOTHING]}


REFERENCE = obj(
    {
        "image": TEXT,
        "transport": TEXT,
        "signature": {
            "anyOf": [obj({"ostreeRemote": TEXT}), {"enum": ["containerPolicy", "insecure"]}]
        },
    },
    "signature",
)
IMAGE = obj(
    {
        "image": REFERENCE,
        "version": optional(TEXT),
        "timestamp": optional({"type": "string", "pattern": "^[0-9]{4}-.*Z$"}),
        "imageDigest": TEXT,
        "architecture": TEXT,
    }
)
COMPOSEFS = obj(
    {
        "verity": VERITY,
        "bootType": {"enum": ["Bls", "Uki"]},
        "bootloader": {"enum": ["grub", "grub-cc", "systemd", "none"]},
        "bootDigest": optional(DIGITS_64),
        "missingVerityAllowed": TRUTH,
    }
)
ENTRY = obj(
    {
        "image": optional(IMAGE),
        "cachedUpdate": optional(IMAGE),
        "incompatible": TRUTH,
        "pinned": TRUTH,
        "softRebootCapable": TRUTH,
        "downloadOnly": TRUTH,
        "store": NOTHING,
        "ostree": NOTHING,
        "composefs": COMPOSEFS,
    }
)
#: Keys of ``status`` that only pybootc has.
MORE = {"findings": {"type": "array"}, "protection": {"type": "object"}}
HOST = obj(
    {
        "apiVersion": {"const": "org.containers.bootc/v1"},
        "kind": {"const": "BootcHost"},
        "metadata": obj({"name": {"const": "host"}}),
        "spec": obj({"image": optional(REFERENCE), "bootOrder": {"enum": ["default", "rollback"]}}),
        "status": obj(
            {
                "staged": optional(ENTRY),
                "booted": optional(ENTRY),
                "rollback": optional(ENTRY),
                "otherDeployments": {"type": "array", "items": ENTRY, "minItems": 1},
                "rollbackQueued": TRUTH,
                "type": optional({"const": "bootcHost"}),
                "usrOverlay": optional(
                    obj(
                        {
                            "accessMode": {"enum": ["readOnly", "readWrite"]},
                            "persistence": {"enum": ["transient", "persistent"]},
                        }
                    )
                ),
                "readOnly": TRUTH,
                **MORE,
            },
            *("otherDeployments", *MORE),
        ),
    }
)

_BYTES = {"bytesCached": NUMBER, "bytes": NUMBER, "bytesTotal": NUMBER}
_STEPS = {"stepsCached": NUMBER, "steps": NUMBER, "stepsTotal": NUMBER}
_TASK = {"task": TEXT, "description": TEXT, "id": TEXT}
_SUBTASK = {"subtask": TEXT, "description": TEXT, "id": TEXT}


def _progress(kind: str, counts: dict[str, Any], subtask: dict[str, Any]) -> dict[str, Any]:
    subtasks = {"type": "array", "items": obj({**_SUBTASK, **subtask})}
    return obj({"type": {"const": kind}, **_TASK, **counts, "subtasks": subtasks})


PROGRESS = {
    "anyOf": [
        obj({"type": {"const": "Start"}, "version": TEXT}),
        _progress("ProgressBytes", {**_BYTES, **_STEPS}, _BYTES),
        _progress("ProgressSteps", _STEPS, {"completed": TRUTH}),
    ]
}
