"""The lists that order and leave out test files name files that exist."""

from tests.support.collection import LONGEST, OPTIONAL, TESTS


def test_optional_test_files_exist() -> None:
    assert [name for name in OPTIONAL if not (TESTS / name).is_file()] == []


def test_longest_test_files_exist() -> None:
    stems = {file.stem for file in TESTS.rglob("test_*.py")}
    assert [name for name in LONGEST if name not in stems] == []


def test_missing_data_or_program_leaves_its_test_file_out() -> None:
    from tests import conftest

    assert set(conftest.collect_ignore) == {name for name, is_here in OPTIONAL.items() if not is_here}
