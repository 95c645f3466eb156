"""The planted bugs fit the current source, and the tests find a few of them. All of them: `python -m tests.planted`."""

import re

import pytest

from tests.planted.bugs import BUGS, QUICK, Bug
from tests.planted.running import ROOT, check_sound, copied, edited, look_for

BY_NAME = {bug.name: bug for bug in BUGS}


def test_there_are_enough_bugs_with_unique_names() -> None:
    assert len(BY_NAME) == len(BUGS) >= 12
    assert set(QUICK) <= BY_NAME.keys()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_edit_applies_exactly_once_and_leaves_valid_python(bug: Bug) -> None:
    text = (ROOT / bug.file).read_text(encoding="utf-8")
    changed = edited(text, bug)
    assert changed != text
    compile(changed, bug.file, "exec")
    with pytest.raises(ValueError, match="0 places"):
        edited(changed.replace(bug.old, ""), bug)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_tests_that_must_find_a_bug_exist(bug: Bug) -> None:
    assert bug.tests
    for test in bug.tests:
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not name or re.search(rf"^def {name}\(", text, re.MULTILINE), test


def test_some_bugs_are_found_and_a_harmless_edit_is_not() -> None:
    bugs = [BY_NAME[name] for name in QUICK]
    harmless = bugs[0]._replace(name="harmless", new=f"{bugs[0].old}  # the same")
    with copied() as copy:
        check_sound(copy, bugs)
        assert [look_for(copy, bug).is_found for bug in (*bugs, harmless)] == [True] * len(bugs) + [False]
        for bug in bugs:  # and nothing stays behind
            assert (copy / bug.file).read_bytes() == (ROOT / bug.file).read_bytes()
