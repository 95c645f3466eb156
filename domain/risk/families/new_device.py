"""New device: a device that the account has not paid from before."""

from dataclasses import dataclass
from typing import ClassVar

from domain.risk.families.novelty import NoveltyRule


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDevice(NoveltyRule):
    """A device that none of the account's payments in the last `lookback_ms` came from.

    At least `minimum_history` of them must have come from another device.
    """

    family: ClassVar[str] = "new_device"
    documentation: ClassVar[str] = "docs/rules/new_device.md"
    key: ClassVar[str] = "device"
