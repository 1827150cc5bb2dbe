"""Reads the JSON output of a program field by field.

The output of another version may lack a field or have it in another form. The error names
the program and the field in one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bootc.fs import process
from bootc.fs.process import CommandFailed


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON object in the output of a program.

    Each method raises ``CommandFailed`` if the field is missing or of another type.
    """

    argv: Sequence[str]
    value: dict[str, Any]

    def wrong(self, what: str) -> CommandFailed:
        """Return the error that says what is wrong with the output."""
        return CommandFailed(self.argv, 0, f"its output makes no sense: {what}".encode())

    def text(self, key: str) -> str:
        """Return a string."""
        text: str = self._checked(key, str)
        return text

    def optional_text(self, key: str) -> str | None:
        """Return a string, or None if the program does not know it."""
        return None if self.value.get(key) is None else self.text(key)

    def number(self, key: str, *, default: int | None = None) -> int:
        """Return a number that is not negative. Some versions write numbers as strings."""
        found = self.value.get(key)
        if found is None and default is not None:
            return default
        if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 20:
            return int(found)
        number: int = self._checked(key, int)
        if number < 0:
            raise self.wrong(f"{key} is negative")
        return number

    def flag(self, key: str) -> bool:
        """Return a truth value. Some versions write 0 and 1, or these as strings."""
        found = self.value.get(key)
        if found in ("0", "1", 0, 1):
            return found in ("1", 1)
        raise self._unlike(key, "true or false")

    def record(self, key: str) -> Record:
        """Return an object."""
        return Record(self.argv, self._checked(key, dict))

    def records(self, key: str, *, default: Sequence[Record] | None = None) -> Sequence[Record]:
        """Return a list of objects, or ``default`` if there is no list."""
        if default is not None and self.value.get(key) is None:
            return default
        found = self._checked(key, list)
        if not all(isinstance(item, dict) for item in found):
            raise self._unlike(key, "a list of objects")
        return [Record(self.argv, item) for item in found]

    def _checked(self, key: str, kind: type[Any]) -> Any:
        found = self.value.get(key)
        if not isinstance(found, kind) or isinstance(found, bool):
            raise self._unlike(key, _KINDS[kind])
        return found

    def _unlike(self, key: str, kind: str) -> CommandFailed:
        return self.wrong(f"{key} is {'not ' + kind if key in self.value else 'missing'}")


_KINDS: dict[type[Any], str] = {
    str: "a string",
    int: "a number",
    dict: "an object",
    list: "a list",
}


def run_for_record(argv: Sequence[str]) -> Record:
    """Run a program that writes one JSON object.

    Raises:
        ToolMissing: the program is not installed.
        CommandFailed: it failed, or its output is not a JSON object.
    """
    return Record(argv, {"output": process.run_json(argv)}).record("output")
