"""No kernel argument that somebody appends lets an older image boot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bootc.formats import cmdline, security_version
from bootc.formats.security_version import MAX, MINIMUM, VERSION, SecurityVersion

NUMBERS = st.integers(0, MAX)
KEYS = st.sampled_from((VERSION, MINIMUM, VERSION.replace("-", "_"), "quiet"))
WORDS = st.builds(
    lambda key, value: f"{key}={value}",
    KEYS,
    st.one_of(NUMBERS.map(str), st.sampled_from(("", "-1", "x", '"7"', "007", str(MAX + 1)))),
)
APPENDED = st.one_of(st.lists(WORDS, max_size=5).map(" ".join), st.text(max_size=40))


@given(NUMBERS, NUMBERS, APPENDED)
def test_an_appended_argument_never_weakens(first: int, second: int, appended: str) -> None:
    own = SecurityVersion(max(first, second), min(first, second))
    line = cmdline.join(["rw", *own.kargs()])
    found = security_version.stated(cmdline.parse(f"{line} {appended}"))
    assert found.stated
    assert found.version <= own.version
    assert found.minimum >= own.minimum
    # So a counter rises to nothing that the image itself is below.
    assert found.raises_to <= own.version
