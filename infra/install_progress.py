"""Run `pip install -r FILE` and report its progress, for `make install`. Uses the standard library only.

On a terminal one line is rewritten every second; elsewhere a new line is written every ten seconds. pip's errors and
warnings pass through, and its exit code is the exit code of this program.
"""

import os
import re
import subprocess
import sys
import sysconfig
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

TERMINAL_EVERY_S = 1.0
LOG_EVERY_S = 10.0
KEPT_LINES = 40
"""Lines of pip's output that are repeated if it fails."""
PIP = ("install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--no-deps", "--require-hashes")
_REQUIREMENT = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*==", re.MULTILINE)
_FETCHED = re.compile(r"^\s*(?:Downloading|Using cached) (\S+?)(?: \(([\d.]+) (bytes|kB|MB|GB)\))?$")
_BUILDING = re.compile(r"^\s*(?:Building wheel for|Preparing metadata for) (\S+)")
_MB = {"bytes": 1e-6, "kB": 1e-3, "MB": 1.0, "GB": 1e3}


@dataclass
class InstallProgress:
    """Progress of one pip run, read from its output: packages fetched before the current one, and their megabytes."""

    total: int
    fetched: int = 0
    megabytes: float = 0.0
    current_megabytes: float | None = None
    activity: str = "starting pip"
    installing: bool = False
    present: int = 0
    installed: int = 0
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def follow(self, stream: IO[str]) -> None:
        """Take in pip's output until it ends."""
        for line in stream:
            self.read(line.rstrip("\n"))

    def read(self, line: str) -> None:
        """Take in one line of pip's output."""
        self.lines.append(line)
        if found := _FETCHED.match(line):
            self._fetch(*found.groups())
        elif found := _BUILDING.match(line):
            self.activity = f"building {found[1]}"
        elif line.startswith("Ignoring "):  # the requirement is for another platform or Python
            self.total -= 1
        elif line.startswith("Requirement already satisfied"):
            self.present += 1
            self.fetched += 1
        elif line.startswith("Successfully installed "):
            self.installed = len(line.split()) - 2
        elif line.startswith("Installing collected packages"):
            self._finish_current()
            self.installing = True

    def _fetch(self, name: str, size: str | None, unit: str | None) -> None:
        """Count one file, unless it is metadata that pip reads ahead of the package."""
        if name.endswith(".metadata"):
            return
        self._finish_current()
        self.current_megabytes = float(size or 0) * _MB[unit or "MB"]
        package, version, *_ = [*name.rpartition("/")[2].split("-"), ""]
        self.activity = f"fetching {package} {version}" + (f" ({size} {unit})" if size else "")

    def _finish_current(self) -> None:
        """Count the package that pip was fetching."""
        if self.current_megabytes is not None:
            self.fetched += 1
            self.megabytes += self.current_megabytes
            self.current_megabytes = None

    def text(self, seconds: float, installed: int) -> str:
        """Return the progress as one line."""
        if self.installing:
            return f"{self.present + installed:3} of {self.total} packages installed, {seconds:.0f} s"
        return f"{self.fetched:3} of {self.total} packages, {self.megabytes:.0f} MB, {seconds:.0f} s: {self.activity}"


def count_installed() -> int:
    """Return how many packages lie in the environment that runs this program."""
    return sum(1 for _ in Path(sysconfig.get_path("purelib")).glob("*.dist-info"))


class StatusLine:
    """The line of progress on standard output, rewritten on a terminal and repeated elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._lock = threading.Lock()
        self.every_s = TERMINAL_EVERY_S if self._terminal else LOG_EVERY_S

    def show(self, text: str) -> None:
        """Write the line of progress."""
        with self._lock:
            if self._terminal:
                width = os.get_terminal_size().columns or 80
                sys.stdout.write("\r\x1b[K" + text[: width - 1])
            else:
                sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def pass_on(self, stream: IO[str]) -> None:
        """Write each line of pip's errors and warnings on standard error, above the line of progress."""
        for line in stream:
            with self._lock:
                if self._terminal:
                    sys.stdout.write("\r\x1b[K")
                    sys.stdout.flush()
                sys.stderr.write(line)
                sys.stderr.flush()

    def end(self) -> None:
        """Leave the line of progress on the terminal as it is and begin the next."""
        if self._terminal:
            sys.stdout.write("\n")
            sys.stdout.flush()


def install(requirements: Path) -> int:
    """Install the locked requirements into this environment, reporting progress. Return pip's exit code."""
    progress = InstallProgress(len(_REQUIREMENT.findall(requirements.read_text(encoding="utf-8"))))
    before, began, status = count_installed(), time.monotonic(), StatusLine()
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "pip", *PIP, "-r", str(requirements)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as pip:
        readers = [
            threading.Thread(target=progress.follow, args=(pip.stdout,)),
            threading.Thread(target=status.pass_on, args=(pip.stderr,)),
        ]
        for reader in readers:
            reader.start()
        while pip.poll() is None:
            status.show(progress.text(time.monotonic() - began, count_installed() - before))
            _wait(pip, status.every_s)
        for reader in readers:
            reader.join()
    seconds = time.monotonic() - began
    if pip.returncode == 0:
        status.show(
            f"{count_installed() - before} packages installed, {progress.megabytes:.0f} MB fetched, {seconds:.0f} s"
        )
    status.end()
    if pip.returncode != 0:
        sys.stderr.write("The last lines of pip's output:\n" + "".join(f"  {line}\n" for line in progress.lines))
    return pip.returncode


def _wait(pip: subprocess.Popen[str], seconds: float) -> None:
    """Wait until pip ends, for the given time at most."""
    try:
        pip.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return


if __name__ == "__main__":
    sys.exit(install(Path(sys.argv[1])))
