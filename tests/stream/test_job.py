"""Checks that a job makes before it starts."""

from pathlib import Path

import pytest

from stream.job import JobOptions, check_mode, newest_checkpoint, parse_options


def options(folder: Path, *more: str) -> JobOptions:
    where = ("--bootstrap", "b", "--registry", "r", "--partitions", "8", "--jars", "j.jar")
    return parse_options([*where, "--checkpoint-dir", str(folder), *more])


def test_checkpoints_of_another_mode_or_backend_are_refused(tmp_path: Path) -> None:
    check_mode(options(tmp_path))
    check_mode(options(tmp_path, "--state-backend", "rocksdb"))  # no checkpoint is written yet: any choice is allowed
    (tmp_path / "job" / "chk-3").mkdir(parents=True)
    (tmp_path / "job" / "chk-3" / "_metadata").touch()
    check_mode(options(tmp_path, "--state-backend", "rocksdb"))
    for other in (("--state-backend", "hashmap"), ("--state-backend", "rocksdb", "--mode", "process")):
        with pytest.raises(SystemExit, match="FRAUDCASE_FLINK_MODE=thread FRAUDCASE_FLINK_STATE_BACKEND=rocksdb"):
            check_mode(options(tmp_path, *other))


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for name in ("chk-9", "chk-10", "shared"):
        (tmp_path / "job" / name).mkdir(parents=True)
    (tmp_path / "job" / "chk-9" / "_metadata").touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "job" / "chk-9"


def test_checkpoint_folder_without_a_backend_note_was_written_on_the_heap(tmp_path: Path) -> None:
    (tmp_path / "job" / "chk-1").mkdir(parents=True)
    (tmp_path / "job" / "chk-1" / "_metadata").touch()
    with pytest.raises(SystemExit, match="FRAUDCASE_FLINK_MODE=thread FRAUDCASE_FLINK_STATE_BACKEND=hashmap"):
        check_mode(options(tmp_path, "--mode", "process"))
    (tmp_path / "mode").write_text("process")
    check_mode(options(tmp_path, "--mode", "process"))
