"""Values as text: a host for people, canonical JSON and YAML; JSON and tables of ``cfsctl``.

The layout of a host for people is scraped by tools too: labels, their order and the marks in
front of the headings stay as they are. What is not as it should be follows at the end;
what merely belongs to others is shown to those only who ask for more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bootc.printable import ascii_escaped, printable

if TYPE_CHECKING:
    from bootc.boot.findings import Finding
    from bootc.deploy.host.model import BootEntry, Host, ImageSpec, ImageStatus, UsrOverlay


#: Text that is a string to every YAML reader: numbers and dates begin with another character.
_YAML_PLAIN = re.compile(r"[A-Za-z_/](?:[A-Za-z0-9_./@+-]|:(?=[A-Za-z0-9_./@+-]))*")
#: But for these, which YAML 1.1 takes for truth values or nothing.
_YAML_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})
#: The kind of findings that are only somebody else's.
_OTHERS = "foreign"


def render_json(value: dict[str, Any]) -> str:
    """Return canonical JSON: sorted keys, no blanks, no newline at the end.

    What is not printable is escaped, which canonical JSON does not do; the values are exact.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return ascii_escaped(text)


def name_value(key: str, raw: bytes) -> dict[str, str]:
    """Return a name for JSON: as text, and if it is not UTF-8 with escapes and in hex as well."""
    try:
        return {key: raw.decode()}
    except UnicodeDecodeError:
        return {key: printable(raw), f"{key}Hex": raw.hex()}


def render_pretty_json(value: dict[str, object]) -> str:
    """Return JSON as ``cfsctl`` prints it: indented, and with a newline at the end."""
    return ascii_escaped(json.dumps(value, indent=2, ensure_ascii=False)) + "\n"


def render_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of one row or more as ``cfsctl`` prints it, with a newline at the end."""
    lines = [header, *(list(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def rule(left: str, line: str, cross: str, right: str) -> str:
        return left + cross.join(line * (width + 2) for width in widths) + right

    text = [
        "│" + "┆".join(f" {cell:<{width}} " for cell, width in zip(line, widths, strict=True)) + "│"
        for line in lines
    ]
    body = f"\n{rule('├', '╌', '┼', '┤')}\n".join(text[1:])
    return "\n".join(
        (
            rule("┌", "─", "┬", "┐"),
            text[0],
            rule("╞", "═", "╪", "╡"),
            body,
            rule("└", "─", "┴", "┘"),
            "",
        )
    )


def render_yaml(value: Mapping[str, object]) -> str:
    """Return YAML in block style, keys in the order of ``value``, with a newline at the end.

    The values are those of JSON, without fractions. Strings that YAML would take for something
    else, or that are more than one plain word, are in double quotes with JSON's escapes.

    >>> print(render_yaml({"a": ["no", {"b": None, "c": []}]}), end="")
    a:
    - "no"
    - b: null
      c: []
    """
    return "".join(f"{line}\n" for line in _yaml_lines(value))


def _yaml_lines(value: object) -> Iterator[str]:
    match value:
        case Mapping() if value:
            for key, item in value.items():
                head = f"{_yaml_scalar(key)}:"
                if item and isinstance(item, Mapping):
                    yield head
                    yield from (f"  {line}" for line in _yaml_lines(item))
                elif item and isinstance(item, list):
                    yield head
                    yield from _yaml_lines(item)
                else:
                    yield from (f"{head} {line}" for line in _yaml_lines(item))
        case [_, *_]:
            for item in value:
                first, *rest = _yaml_lines(item)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
        case Mapping():
            yield "{}"
        case []:
            yield "[]"
        case _:
            yield _yaml_scalar(value)


def _yaml_scalar(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            plain = _YAML_PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS
            return value if plain else _yaml_quoted(value)
        case _:
            raise TypeError(f"no YAML for {value!r:.80}")


def _yaml_quoted(text: str) -> str:
    # JSON's escapes are YAML's, but for characters that JSON writes as two.
    wide = (c for c in text if ord(c) > 0xFFFF and not c.isprintable())
    quoted = json.dumps(text, ensure_ascii=False)
    for char in dict.fromkeys(wide):
        quoted = quoted.replace(char, f"\\U{ord(char):08x}")
    return ascii_escaped(quoted)


def render_human(host: Host, *, verbose: bool) -> str:
    """Return the host as text for people, with a newline at the end."""
    status = host.status
    slots = [
        ("  Staged", status.staged),
        ("● Booted", status.booted),
        ("  Rollback", status.rollback),
        *(("   Other", entry) for entry in status.other_deployments if entry.image is not None),
    ]
    sections = []
    for heading, entry in slots:
        if entry is None:
            continue
        rows = list(_rows(entry))
        if entry is status.booted and status.usr_overlay is not None:
            rows.append(("/usr overlay", _overlay(status.usr_overlay)))
        if verbose:
            rows += _verbose_rows(entry, staged=entry is status.staged)
        sections.append(_section(heading, entry.image, rows))
    if not sections:
        return "System is not deployed via bootc.\n"
    shown = [f for f in status.findings if verbose or f.kind != _OTHERS]
    if shown:
        sections.append("".join(f"{_finding(finding)}\n" for finding in shown))
    return "\n".join(sections)


def _finding(finding: Finding) -> str:
    return f"{finding.kind.value}: {printable(finding.subject)}: {printable(finding.text)}"


def _section(heading: str, image: ImageStatus | None, rows: Iterable[tuple[str, str]]) -> str:
    if image is None:
        heading = first_line = f"{heading} composefs"
    else:
        heading = f"{heading} image"
        first_line = f"{heading}: {printable(_short_reference(image.image))}"
    # Values of all rows start below that of the heading. One that held a newline could show
    # rows and headings of its own.
    lines = (f"{label:>{len(heading)}}: {printable(value)}" for label, value in rows)
    return "\n".join([first_line, *lines, ""])


def _rows(entry: BootEntry) -> Iterator[tuple[str, str]]:
    verity = entry.composefs.verity.hex
    image = entry.image
    if image is None:
        yield "Commit", verity
        if entry.pinned:
            yield "Pinned", "yes"
        return
    yield "Digest", f"{image.digest} ({image.architecture})"
    yield "Verity", verity
    if image.version is not None:
        yield "Version", _version(image.version, image)
    elif image.timestamp is not None:
        yield "Timestamp", str(image.timestamp)
    if entry.pinned:
        yield "Pinned", "yes"
    if entry.cached_update is not None:
        yield from _update_rows(entry.cached_update)


def _update_rows(update: ImageStatus) -> Iterator[tuple[str, str]]:
    if update.version is None:
        yield "Update", "Available"
    else:
        yield "UpdateVersion", _version(update.version, update)
    yield "UpdateDigest", str(update.digest)


def _version(version: str, image: ImageStatus) -> str:
    return version if image.timestamp is None else f"{version} ({image.timestamp})"


def _verbose_rows(entry: BootEntry, *, staged: bool) -> Iterator[tuple[str, str]]:
    if entry.image is not None and entry.image.image.signature is not None:
        remote = entry.image.image.signature.ostree_remote
        yield "Signature", "container-policy" if remote is None else f"ostree-remote:{remote}"
    yield "Soft-reboot", _yes_no(entry.soft_reboot_capable)
    allowed = entry.composefs.missing_verity_allowed
    yield "FsVerity", "Not Enforced" if allowed else "Enforced"
    if staged:
        yield "Download-only", _yes_no(entry.download_only)


def _overlay(overlay: UsrOverlay) -> str:
    return f"transient, {'read-only' if overlay.access_mode == 'readOnly' else 'read/write'}"


def _short_reference(image: ImageSpec) -> str:
    reference = image.reference
    if reference.transport == "registry":
        return reference.name
    return f"{reference.transport}:{reference.name}"


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
