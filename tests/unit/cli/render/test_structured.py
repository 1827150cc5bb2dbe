from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bootc.cli.render import structured
from bootc.cli.render.structured import render_json, render_yaml
from bootc.deploy.host.model import Host, HostSpec, HostStatus
from support.hosts import FULL, ODD


def test_json_of_any_file_name_can_be_written() -> None:
    value = Host(HostSpec(), HostStatus(findings=ODD)).to_json()
    assert json.loads(render_json(value).encode()) == value
    assert value["status"]["findings"][1] == {
        "kind": "malformed",
        "subject": "bootc_\\xff\\x1b[2J.conf",
        "text": "two\\nlines",
    }


def test_json_is_canonical() -> None:
    assert render_json({"b": "é", "a": [1, None]}) == '{"a":[1,null],"b":"é"}'
    assert json.loads(render_json(FULL.to_json())) == FULL.to_json()


def test_yaml_keeps_the_order_of_the_schema() -> None:
    assert render_yaml(Host.empty().to_json()) == (
        "apiVersion: org.containers.bootc/v1\n"
        "kind: BootcHost\n"
        "metadata:\n"
        "  name: host\n"
        "spec:\n"
        "  image: null\n"
        "  bootOrder: default\n"
        "status:\n"
        "  staged: null\n"
        "  booted: null\n"
        "  rollback: null\n"
        "  rollbackQueued: false\n"
        "  type: null\n"
        "  usrOverlay: null\n"
        "  readOnly: false\n"
    )


def test_yaml_of_a_whole_host() -> None:
    value = FULL.to_json()
    assert render_yaml(value).startswith("apiVersion: org.containers.bootc/v1\nkind: BootcHost\n")
    assert "  staged:\n    image:\n      image:\n        image: /new\n" in render_yaml(value)
    assert yaml.safe_load(render_yaml(value)) == value


#: What YAML readers take for something else than a string, or for several things.
SUSPICIOUS = (
    *("no", "Yes", "ON", "y", "N", "true", "False", "null", "~", "", "=", "<<", "-", "?", ":"),
    *("1", "-1", "0x1f", "0o17", "017", "1e3", ".5", "1_000", "1:30", ".inf", "-.INF", ".nan"),
    *("2026-08-01", "2026-08-01T00:00:00Z", "a: b", "a:", "a #b", "#a", " a", "a ", "a\nb", "- a"),
    *("[a]", "{a}", "a, b", "&a", "*a", "!a", "|", ">", "'a'", '"a"', "%a", "@a", "`a", "a:b"),
    *("a\tb", "\x1b", "\x7f", "\x85", "\u2028", "\ufeff", "\U000e0001", "\U0001f600", "é", "---"),
    *("...", "a\\b", "\0", "key: [", "sha256:00", "/a/b", "a/b@sha256:0", "_", "x:", "::", "a::b"),
)
TEXTS = st.sampled_from(SUSPICIOUS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=3))
def test_yaml_means_what_it_is_made_of(value: dict[str, object]) -> None:
    text = render_yaml(value)
    assert yaml.safe_load(text) == value
    assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("text", SUSPICIOUS)
def test_yaml_of_suspicious_text(text: str) -> None:
    value = {text: text, "a": [text, {text: [text]}]}
    assert yaml.safe_load(render_yaml(value)) == value
    assert list(yaml.safe_load(render_yaml(value))) == list(value)


def test_other_values_are_a_mistake() -> None:
    with pytest.raises(TypeError):
        render_yaml({"a": 1.5})


def test_status_needs_no_library_for_yaml() -> None:
    program = "import sys; sys.modules['yaml'] = None\nfrom bootc.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "status"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert yaml.safe_load(done.stdout)["kind"] == "BootcHost"


def test_doctests() -> None:
    assert doctest.testmod(structured).failed == 0
