from __future__ import annotations

import itertools

from bootc.formats.grub_order import grub_order


def test_grub_puts_the_highest_first() -> None:
    shown = [
        "bootc_fedora-43.10-0.conf",
        "bootc_fedora-43.9-1.conf",
        "bootc_fedora-43.9-0.conf",
        "bootc_fedora-43-1.conf",
        "bootc_fedora-43~rc1-1.conf",
        "bootc_fedora-rawhide-1.conf",
        "bootc_debian-99-1.conf",
        "a.conf",
    ]
    for names in itertools.permutations(shown[:4]):
        assert grub_order(names) == shown[:4]
    assert grub_order(reversed(shown)) == shown


def test_equal_versions_still_have_an_order() -> None:
    assert grub_order(["a-1-01.conf", "a-1-1.conf"]) == ["a-1-1.conf", "a-1-01.conf"]
    assert grub_order(["", "~", "-", "x"]) == ["x", "-", "", "~"]
