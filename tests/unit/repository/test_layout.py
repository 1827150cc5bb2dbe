"""Names on disk."""

from __future__ import annotations

import os

from bootc.repository import layout

HEX = "0123456789abcdef" * 8


def test_object_lies_below_its_first_byte() -> None:
    assert layout.object_path(HEX) == f"objects/01/{HEX[2:]}"


def test_links_lead_from_where_they_lie_to_the_object() -> None:
    for path in (layout.image_path(HEX), layout.stream_path("oci-config-sha256:00")):
        target = os.path.join(os.path.dirname(path), layout.link_to_object(HEX))
        assert os.path.normpath(target) == layout.object_path(HEX)


def test_state_links_to_the_shared_var() -> None:
    state = layout.state_dir(HEX)
    assert state == f"state/deploy/{HEX}"
    assert os.path.normpath(os.path.join(state, layout.VAR_LINK)) == layout.OS_VAR
    assert layout.origin_name(HEX) == f"{HEX}.origin"
