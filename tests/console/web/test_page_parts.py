"""The choices on pages are refreshed when they are old, and only the request that refreshes them waits."""

import time
from typing import Any, cast

import pytest

from console.web.pages.parts import PageServices


def test_old_choices_are_refreshed_and_concurrent_requests_get_the_old_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    parts = PageServices(control=cast("Any", None), runs=cast("Any", None), choices_s=1.0)
    meanwhile: list[list[str]] = []

    def ask() -> list[str]:
        if parts.is_fresh("analysts"):
            meanwhile.append(parts.choices("analysts", ask))
        return [f"asked at {now_s[0]}"]

    assert not parts.is_fresh("analysts")
    assert parts.choices("analysts", ask) == ["asked at 100.0"]
    now_s[0] = 100.5
    assert parts.is_fresh("analysts")
    assert parts.choices("analysts", ask) == ["asked at 100.0"]
    assert not parts.is_fresh("typologies")
    assert parts.held("typologies") is None
    now_s[0] = 101.0
    assert not parts.is_fresh("analysts")
    assert parts.choices("analysts", ask) == ["asked at 101.0"]
    assert meanwhile == [["asked at 100.0"]]
    now_s[0] = 105.9
    assert not parts.is_fresh("analysts")
    assert parts.held("analysts") == ["asked at 101.0"]
    now_s[0] = 106.0
    assert parts.held("analysts") is None
