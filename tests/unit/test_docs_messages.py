"""Messages that documents quote are messages that the code prints.

A message has variable parts, so it is not searched as a whole. Every plain word of a quoted
message must be part of a fragment of the code's own text that occurs in the message: a string,
or a piece of an f-string of two words or more. Names, numbers and quoted text are variable.

Messages are the output below a command in the how-tos, and code of three words or more that is
no command.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
HOWTOS = sorted(TOP.glob("docs/howto/*.md"))
PAGES = sorted(TOP.glob("docs/man/*.rst"))
_BLOCK = re.compile(r"(?:^ {4,}.*\n|^\n)+", re.MULTILINE)
_SPAN = re.compile(r"``([^`]+)``|`([^`]+)`")
_COMMAND = re.compile(r"(?:# |RUN |bootc |\$|journalctl |cp |rsync |podman |chattr )")
#: A sentence; not a list of values or of file names.
_WORDS = re.compile(r"[A-Za-z]\w+,?(?: [a-z]\w*,?){2,}")
_VARIABLE = re.compile(r"(?<=')[^' ]+(?=')|(?<=\")[^\"]*(?=\")")
#: What divides a string that is not an f-string.
_PLACE = re.compile(r"\n|\{\w*\}|%[sd]")
#: A piece of an f-string that proves nothing: it counts only beside a variable part.
_JOINT = re.compile(r"[a-z]+")
_PLAIN = re.compile(r"(?![kmgt]i?b$)[a-z]{2,}(?:-[a-z]+)*")
#: Messages of skopeo, which a test with the real one provokes.
OF_SKOPEO = (
    "A signature was required, but no signature exists",
    "cryptographic signature verification failed",
    "Signature for identity … is not accepted",
    "Signature for digest … does not match",
)
#: How many characters of a fragment are looked for first.
_BEGINNING = 20


@cache
def fragments() -> frozenset[str]:
    """Return what the code can print between variable parts, without pieces of one word."""
    found: set[str] = set()
    for path in TOP.glob("src/bootc/**/*.py"):
        tree = ast.parse(path.read_bytes())
        pieces = {
            id(piece)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for piece in node.values
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                lines = [" ".join(line.split()) for line in _PLACE.split(node.value)]
                keep = [x for x in lines if id(node) not in pieces or not _JOINT.fullmatch(x)]
                found.update(line.lower() for line in keep)
            elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value.value = None  # a docstring, which is visited later
    return frozenset(found - {""})


def foreign_words(message: str) -> list[str]:
    """Return the words of a message that the code does not print in it."""
    text = _VARIABLE.sub("", " ".join(message.lower().split()))
    known = [False] * len(text)
    for fragment in fragments():
        start = text.find(fragment[:_BEGINNING])
        while start >= 0:
            end = start + _shared(text[start:], fragment)
            # The end of a message may be left out.
            if end - start == len(fragment) or text[end:].lstrip(" ,")[:1] in ("", "…"):
                known[start:end] = [True] * (end - start)
            start = text.find(fragment[:_BEGINNING], start + 1)
    words = [(m.start(), m.end(), m[0]) for m in re.finditer(r"[a-z…\d][^\s()\[\],;:\"]*\b", text)]
    plain = [_PLAIN.fullmatch(word) is not None for _, _, word in words] + [True]
    return [
        word
        for i, (start, end, word) in enumerate(words)
        if plain[i] and plain[i - 1] and plain[i + 1] and not all(known[start:end])
    ]


def _shared(a: str, b: str) -> int:
    """Return how many characters two texts begin with alike."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def messages(document: Path) -> Iterator[str]:
    text = document.read_text("utf-8")
    for block in _BLOCK.findall(text) if document.suffix == ".md" else ():
        lines: list[str] = []
        prompt = re.compile("# ") if re.search("^ +# ", block, re.M) else _COMMAND
        for line in [*block.splitlines(), ""]:
            if line.strip() and not prompt.match(line.lstrip()):
                lines.append(line)
            elif lines:
                yield " ".join(lines)
                lines = []
    for spans in _SPAN.findall(text):
        span = " ".join(max(spans).split())
        if _WORDS.search(span) and not _COMMAND.match(span):
            yield span


def test_the_method() -> None:
    assert len(fragments()) > 2000
    good = "error: No staged deployment found (hint: stage one: bootc upgrade)"
    assert foreign_words(good) == []
    assert foreign_words(good.replace("found", "seen")) != []
    assert sum(1 for page in HOWTOS for _ in messages(page)) > 30


@pytest.mark.parametrize("document", [*HOWTOS, *PAGES], ids=lambda path: path.name)
def test_quoted_messages_are_printed(document: Path) -> None:
    found = ((message, foreign_words(message)) for message in messages(document))
    assert [row for row in found if row[1] and row[0] not in OF_SKOPEO] == []


@pytest.mark.parametrize("message", OF_SKOPEO)
def test_messages_of_skopeo_are_provoked(message: str) -> None:
    beginning = message.partition("…")[0]
    assert f'"{beginning}"' in (TOP / "tests/interop/test_signature_policy.py").read_text()
    assert any(message in messages(page) for page in HOWTOS)
