"""The progress of `make install`, read from pip's output."""

import pytest

from infra.install_progress import InstallProgress


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        pytest.param([], "  0 of 3 packages, 0 MB, 7 s: starting pip", id="pip has written nothing"),
        pytest.param(
            ["Collecting a==1", "  Downloading a-1.0-py3-none-any.whl (231.5 MB)"],
            "  0 of 3 packages, 0 MB, 7 s: fetching a 1.0 (231.5 MB)",
            id="the first package is on its way",
        ),
        pytest.param(
            ["  Downloading a-1.0-py3-none-any.whl (231.5 MB)", "  Using cached b-2.1.tar.gz (500 kB)"],
            "  1 of 3 packages, 232 MB, 7 s: fetching b 2.1.tar.gz (500 kB)",
            id="a package counts when the next one begins",
        ),
        pytest.param(
            ["  Downloading a-1.0-py3-none-any.whl.metadata (2 kB)"],
            "  0 of 3 packages, 0 MB, 7 s: starting pip",
            id="metadata is no package",
        ),
        pytest.param(
            ["Ignoring c: markers 'sys_platform == \"win32\"' don't match your environment"],
            "  0 of 2 packages, 0 MB, 7 s: starting pip",
            id="a requirement for another platform leaves the total",
        ),
        pytest.param(
            ["Requirement already satisfied: a==1 in ./lib", "Installing collected packages: b, c"],
            "  2 of 3 packages installed, 7 s",
            id="installing counts what was there before",
        ),
    ],
)
def test_progress_after_lines_of_pip(lines: list[str], text: str) -> None:
    progress = InstallProgress(3)
    for line in lines:
        progress.read(line)
    assert progress.text(7.2, installed=1) == text
