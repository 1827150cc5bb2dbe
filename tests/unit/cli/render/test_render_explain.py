from __future__ import annotations

import json
from pathlib import Path

from bootc.cli.render.explain import comparison_json, comparison_text
from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.oci.explain import Comparison, explain

A = b"""\
/ 0 40755 4 0 0 0 1000.5 - - -
/usr 0 40755 3 0 0 0 1000.5 - - -
/usr/bin 0 40755 2 0 0 0 1000.5 - - -
/usr/bin/\\xff\\x1b 1 100755 1 0 0 0 1000.5 - x -
/run 0 40755 2 0 0 0 1000.5 - - -
"""


def report(path: Path, a: bytes = A, b: bytes = A, version: int | None = None) -> Comparison:
    """Compare dumpfiles, or a dumpfile and the image of one."""
    (path / "a").write_bytes(a)
    (path / "b").write_bytes(b)
    if version is not None:
        root = parse_dumpfile(b.splitlines())
        (path / "b").write_bytes(mkfs_erofs(root, version=version))
    return explain(str(path / "a"), str(path / "b"))


def after(text: str) -> list[str]:
    """Return what follows the two sides."""
    return text.splitlines()[4:]


def test_equal(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert comparison_text(found).splitlines() == [
        f"A: {tmp_path}/a (dumpfile, 5 entries)",
        f"   {found.a.digest.hex}",
        f"B: {tmp_path}/b (dumpfile, 5 entries)",
        f"   {found.a.digest.hex}",
        "The digests are equal.",
    ]


def test_classes_counts_and_examples(tmp_path: Path) -> None:
    changed = (
        A.replace(b"/usr/bin 0 40755 2 0 0 0 1000.5", b"/usr/bin 0 40700 2 0 0 0 2000.0")
        .replace(b"- x -", b"- x - user.a=\\xff user.\\xff=")
        .replace(b"/run 0 40755 2", b"/run 0 40755 3")
        + b"/run/d 0 40755 2 0 0 0 0.0 - - -\n/run/d/f 0 100644 1 0 0 0 0.0 - - -\n"
    )
    assert after(comparison_text(report(tmp_path, A, changed))) == [
        "The digests differ.",
        "",
        "entry missing          2, 1 directory, only in B",
        "    /run/d: directory of 2 entries, only in B",
        "mode                   1, directories only",
        "    /usr/bin: 0755 in A, 0700 in B",
        "mtime                  1, directories only",
        "    /usr/bin: 1970-01-01T00:16:40.000000005Z in A, 1970-01-01T00:33:20Z in B",
        "xattr user.a           1, only in B",
        "    /usr/bin/\\xff\\x1b: nothing in A, \\xff in B",
        "xattr user.\\xff        1, only in B",
        "    /usr/bin/\\xff\\x1b: nothing in A, empty in B",
        "",
        "No known canonicalisation makes them equal.",
    ]


def test_a_cure(tmp_path: Path) -> None:
    changed = A.replace(b"1000.5 - x", b"1000.0 - x")
    assert after(comparison_text(report(tmp_path, A, changed))) == [
        "The digests differ.",
        "",
        "mtime nanoseconds        1",
        "    /usr/bin/\\xff\\x1b: 1970-01-01T00:16:40.000000005Z in A, 1970-01-01T00:16:40Z in B",
        "",
        "These become equal when",
        "  - nanoseconds: modification times are cut to whole seconds (which changes A).",
        "    Archives without PAX times and images of version 2 lose the fractions: build",
        "    both from the same archive, or set whole seconds when building the image.",
    ]


def test_format_versions(tmp_path: Path) -> None:
    assert after(comparison_text(report(tmp_path, version=2))) == [
        "The digests differ.",
        "",
        "format version: 1 in A, 2 in B",
        "mtime nanoseconds        5, 4 directories",
        *(
            f"    {path}: 1970-01-01T00:16:40.000000005Z in A, 1970-01-01T00:16:40Z in B"
            for path in ("/", "/run", "/usr", "/usr/bin", "/usr/bin/\\xff\\x1b")
        ),
        "",
        "These become equal when",
        "  - format-version: both are written in the same format version (version 2 keeps",
        "    whole seconds only) (which changes A).",
        "    Composefs's default went from version 2 to 1 in 2026: accept both digests,",
        "    or make one image again in the version of the other.",
    ]


def test_other_writers(tmp_path: Path) -> None:
    report(tmp_path, version=1)
    raw = bytearray((tmp_path / "b").read_bytes())
    raw[1024 + 64 : 1024 + 66] = b"me"  # the volume's name
    (tmp_path / "b").write_bytes(raw)
    found = explain(str(tmp_path / "a"), str(tmp_path / "b"))
    assert after(comparison_text(found)) == [
        "The digests differ.",
        "",
        "The trees are equal; the images were written by different rules: "
        "A composefs-rs, B unknown.",
    ]
    assert json.loads(comparison_json(found))["writers"] == ["composefs-rs", None]


def test_json(tmp_path: Path) -> None:
    changed = A.replace(b"- x -", b"- x - user.\\xff=1")
    found = report(tmp_path, A, changed)
    value = json.loads(comparison_json(found))
    assert value["a"] == {
        "name": f"{tmp_path}/a",
        "kind": "dumpfile",
        "entries": 5,
        "digest": found.a.digest.hex,
        "formatVersion": 1,
    }
    assert value["differences"] == [
        {
            "class": "xattr",
            "xattr": "user.\\xff",
            "xattrHex": "757365722eff",
            "entries": 1,
            "directories": 0,
            "onlyA": 0,
            "onlyB": 1,
            "examples": [
                {
                    "path": "/usr/bin/\\xff\\x1b",
                    "pathHex": "2f7573722f62696e2fff1b",
                    "a": None,
                    "b": "1",
                }
            ],
        }
    ]
    (cure,) = value["equalWhen"]
    assert (cure["canonicalisation"], cure["changes"]) == ("xattr-allowlist", ["b"])
    assert cure["condition"] == "no xattr is kept but security.capability"
    assert value["writers"] is None
    assert not value["equal"]


def test_json_of_equal_and_of_incurable_trees(tmp_path: Path) -> None:
    value = json.loads(comparison_json(report(tmp_path)))
    assert (value["equal"], value["differences"], value["equalWhen"]) == (True, [], [])
    changed = A.replace(b"40755 4 0 0", b"40755 4 7 0")
    assert json.loads(comparison_json(report(tmp_path, A, changed)))["equalWhen"] == [
        {
            "canonicalisation": "root-from-usr",
            "condition": "the root directory gets the metadata of /usr",
            "advice": "layers and extracted directories do not agree about the root: compute both "
            "digests with a current tool, which takes it from /usr",
            "changes": ["b"],
        }
    ]
    changed = A.replace(b"- x -", b"- y -")
    assert json.loads(comparison_json(report(tmp_path, A, changed)))["equalWhen"] is None


def test_names_that_are_not_text(tmp_path: Path) -> None:
    odd = tmp_path / "\udcff"
    odd.write_bytes(A)
    found = explain(str(odd), str(odd))
    assert comparison_text(found).startswith(f"A: {tmp_path}/\\xff (dumpfile")
    assert json.loads(comparison_json(found))["a"]["name"] == f"{tmp_path}/\\xff"
