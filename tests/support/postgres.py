"""A PostgreSQL for the length of a test run: in a new folder, on a Unix socket, removed afterwards."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find_binaries() -> Path | None:
    """Return the folder with PostgreSQL's programs: the newest of Debian's packages, or the one on PATH."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("initdb")
    return packaged[-1].parent if packaged else Path(on_path).parent if on_path else None


@contextmanager
def private_cluster(binaries: Path) -> Iterator[str]:
    """Yield the URL of an empty database. PostgreSQL refuses to run as root, so root runs it as `postgres`."""
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="fraudcase-pg-"))
    data = folder / "data"
    if user:
        shutil.chown(folder, user)
    try:
        _run(user, binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        _run(user, binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql://postgres@/postgres?host={folder}"
        finally:
            _run(user, binaries / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _run(user: str | None, *command: object) -> None:
    subprocess.run(
        list(map(str, command)), check=True, user=user, cwd="/", stdout=subprocess.DEVNULL, timeout=120, env={}
    )
