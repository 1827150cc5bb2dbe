"""JSON and YAML: the values of results as text for programs.

Nothing in the text can be taken for a terminal's command, and the values that a reader gets
are exact: each character that is not printable is written with an escape of the format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bootc.printable import ascii_escaped, printable

#: Text that every YAML reader takes for a string: numbers and dates begin differently.
_YAML_PLAIN = re.compile(r"[A-Za-z_/](?:[A-Za-z0-9_./@+-]|:(?=[A-Za-z0-9_./@+-]))*")
#: Words that YAML 1.1 takes for truth values or null.
_YAML_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null"})


def render_json(value: dict[str, Any]) -> str:
    """Return canonical JSON: sorted keys, no blanks, no newline at the end.

    Unlike canonical JSON it escapes characters that are not printable. The values are exact.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return ascii_escaped(text)


def name_value(key: str, raw: bytes) -> dict[str, str]:
    """Return a name for JSON: as text. If it is not UTF-8, as text with escapes and in hex."""
    try:
        return {key: raw.decode()}
    except UnicodeDecodeError:
        return {key: printable(raw), f"{key}Hex": raw.hex()}


def render_pretty_json(value: dict[str, object]) -> str:
    """Return JSON as ``cfsctl`` prints it: indented, and with a newline at the end."""
    return ascii_escaped(json.dumps(value, indent=2, ensure_ascii=False)) + "\n"


def render_yaml(value: Mapping[str, object]) -> str:
    """Return YAML in block style, keys in the order of ``value``, with a newline at the end.

    The values are those of JSON, without fractions. A string is in double quotes, with JSON's
    escapes, if YAML would take it for something else or if it is not a plain word.

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
    # YAML has JSON's escapes, except for characters that JSON writes as two.
    wide = (c for c in text if ord(c) > 0xFFFF and not c.isprintable())
    quoted = json.dumps(text, ensure_ascii=False)
    for char in dict.fromkeys(wide):
        quoted = quoted.replace(char, f"\\U{ord(char):08x}")
    return ascii_escaped(quoted)
