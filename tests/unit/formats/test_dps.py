from __future__ import annotations

import pytest

from bootc.formats.dps import UnsupportedArchitecture, root_type


def test_root_types_differ_by_machine() -> None:
    assert root_type("x86_64") == "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
    assert root_type("aarch64") == "b921b045-1df0-41c3-af44-4c6f280d3fae"


def test_an_unknown_machine_is_named() -> None:
    with pytest.raises(UnsupportedArchitecture, match="unsupported architecture 'vax'"):
        root_type("vax")
