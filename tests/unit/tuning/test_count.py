"""Which boots have a count that differs from run to run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tasks.tuning import count


@pytest.mark.parametrize(
    ("disk", "card", "without"),
    [
        (False, (), []),
        (False, ("-device", "ne2k_pci,netdev=n"), []),
        (True, (), ["boot=initramfs"]),
        (False, ("-device", "virtio-net-pci,netdev=n"), ["net=none"]),
        (True, ("-device", "virtio-net-device"), ["boot=initramfs", "net=none"]),
    ],
)
def test_what_answers_in_the_hosts_time(
    disk: bool, card: Sequence[str], without: list[str]
) -> None:
    assert [one.without for one in count.in_host_time(disk, card)] == without


def test_its_words() -> None:
    (disk,) = count.in_host_time(True, ())
    assert str(disk) == "a disk answers in the host's time"
