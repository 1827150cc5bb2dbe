"""Add-ons of unified kernel images, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bootc.printable import printable

if TYPE_CHECKING:
    from bootc.deploy.addons import Addon, AddonList

_MAX_ARGUMENTS = 2048


def addon_lines(found: AddonList) -> Iterator[str]:
    """Yield the lines of ``bootc addon list``."""
    if not found.addons:
        yield "No add-ons."
    for addon in found.addons:
        yield printable(addon.installed.name)
        for name, value in _values(found, addon):
            yield f"  {name + ':':<11}{value}"


def _values(found: AddonList, addon: Addon) -> Iterator[tuple[str, str]]:
    if addon.deployment is None:
        yield "For", "all deployments"
    else:
        role = found.roles.get(addon.deployment)
        yield "For", f"deployment {addon.deployment}" + (f" ({role})" if role else "")
    content = addon.installed.content
    if content is None:
        yield "Unusable", printable(addon.installed.problem)
    else:
        if content.arguments is not None:
            yield "Arguments", printable(content.arguments, _MAX_ARGUMENTS)
        others = [name for name in content.sections if name != ".cmdline"]
        if others:
            yield "Sections", ", ".join(others)
        if content.release is not None:
            yield "Kernel", printable(content.release, 80)
        signed = "yes (only the firmware verifies it)"
        yield "Signed", signed if content.signed else "no"
    yield "From", "unknown" if addon.owner is None else addon.owner.value


def addons_json(found: AddonList) -> dict[str, Any]:
    """Return the JSON of ``bootc addon list --json``."""
    return {"addons": [_json(found, addon) for addon in found.addons]}


def _json(found: AddonList, addon: Addon) -> dict[str, Any]:
    installed, content = addon.installed, addon.installed.content
    role = None if addon.deployment is None else found.roles.get(addon.deployment)
    return {
        "name": installed.name,
        "path": installed.path,
        "scope": "global" if addon.deployment is None else "deployment",
        "deployment": None if addon.deployment is None else addon.deployment.hex,
        "role": role,
        "from": None if addon.owner is None else addon.owner.value,
        "sizeBytes": installed.size_bytes,
        "signed": None if content is None else content.signed,
        "arguments": None if content is None else content.arguments,
        "sections": None if content is None else list(content.sections),
        "kernel": None if content is None else content.release,
        "problem": installed.problem or None,
    }
