"""Jars of the stack, locked by version and SHA-256 in `jars.lock`, and their download.

`python -m infra.jars FOLDER` resolves the coordinates again and rewrites the lock.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import httpx
import jgo
from jgo.constants import MAVEN_CENTRAL_URL

from infra.errors import StackError

LOCK = "jars.lock"
COORDINATES = {
    "kafka": (
        "org.apache.kafka:kafka_2.13:4.1.0",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
        "org.apache.logging.log4j:log4j-core:2.25.3",
    ),
    "registry": ("io.apicurio:apicurio-registry-app:3.3.3",),
    "dynamodb": ("com.amazonaws:DynamoDBLocal:2.6.1",),
    "s3": ("com.adobe.testing:s3mock:4.7.0",),
    "flink": (
        "org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",
        "org.apache.flink:flink-sql-avro-confluent-registry:2.3.0",
    ),
}
ALONE = {  # artifacts without dependencies: (classifier, file extension) of the file to fetch
    "io.apicurio:apicurio-registry-app": ("all", "tar.gz"),
    "com.adobe.testing:s3mock": ("exec", "jar"),
    "org.apache.flink:flink-sql-connector-kafka": ("", "jar"),
    "org.apache.flink:flink-sql-avro-confluent-registry": ("", "jar"),
}
NATIVE = ("com.almworks.sqlite4java", "libsqlite4java-linux-amd64", "1.0.392", "", "so")
"""SQLite library of DynamoDB Local, which no POM names as a dependency."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Jar:
    """Locked file; `part` is the program that needs it."""

    part: str
    group: str
    artifact: str
    version: str
    classifier: str
    extension: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """Return the file's name in a Maven repository."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{classifier}.{self.extension}"

    @property
    def path(self) -> str:
        """Return the file's path in a Maven repository."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.name}"


def repository() -> str:
    """Return the URL of the Maven repository: FRAUDCASE_MAVEN_REPOSITORY if set, else jgo's default."""
    base: str = os.environ.get("FRAUDCASE_MAVEN_REPOSITORY", MAVEN_CENTRAL_URL)
    return base.rstrip("/")


def locked_jars() -> list[Jar]:
    """Return the jars in the lock."""
    text = files("infra").joinpath(LOCK).read_text(encoding="utf-8")
    return [Jar(**entry) for entry in json.loads(text)]


def jar_path(folder: Path, jar: Jar) -> Path:
    """Return the path of a jar on this machine."""
    return folder / jar.part / jar.name


def missing_jars(folder: Path) -> list[Jar]:
    """Return the locked jars that are missing or incomplete."""
    return [jar for jar in locked_jars() if not _is_whole(jar_path(folder, jar), jar)]


def altered_jars(folder: Path) -> list[Jar]:
    """Return the jars whose bytes differ from the locked ones."""
    present = [jar for jar in locked_jars() if jar_path(folder, jar).exists()]
    return [jar for jar in present if _sha256(jar_path(folder, jar)) != jar.sha256]


def _is_whole(file: Path, jar: Jar) -> bool:
    return file.exists() and file.stat().st_size == jar.size


def fetch(folder: Path, jars: Iterable[Jar], arrived: Callable[[int], None] = lambda _: None) -> None:
    """Fetch jars in parallel. A jar gets its name only once its SHA-256 is correct. Raise StackError.

    `arrived` is called with the number of bytes of each chunk.
    """
    with httpx.Client(timeout=60, follow_redirects=True) as client, ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(_fetch_one, client, folder, jar, arrived) for jar in jars]:
            done.result()


def _fetch_one(client: httpx.Client, folder: Path, jar: Jar, arrived: Callable[[int], None]) -> None:
    file = jar_path(folder, jar)
    file.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as partial:
        try:
            with client.stream("GET", f"{repository()}/{jar.path}") as response:
                response.raise_for_status()
                for chunk in response.iter_bytes(_CHUNK):
                    partial.write(chunk)
                    digest.update(chunk)
                    arrived(len(chunk))
        except httpx.HTTPError as error:
            Path(partial.name).unlink()
            raise StackError(
                f"{jar.name} could not be downloaded ({type(error).__name__}). Cure: check the network or the proxy "
                "variables, or name a Maven repository that you can reach in FRAUDCASE_MAVEN_REPOSITORY"
            ) from error
    if digest.hexdigest() != jar.sha256:
        Path(partial.name).unlink()
        raise StackError(
            f"{jar.name} has SHA-256 {digest.hexdigest()}, but the lock says {jar.sha256}. It was not kept. Cure: use "
            "another repository; if the artifact has really changed, rewrite the lock: python -m infra.jars FOLDER"
        )
    Path(partial.name).chmod(0o644)
    Path(partial.name).rename(file)


def relock(folder: Path) -> list[Jar]:
    """Resolve the coordinates, download their jars, and return the entries of the new lock."""
    artifacts = [("dynamodb", *NATIVE)]
    for part, endpoints in COORDINATES.items():
        for endpoint in endpoints:
            artifacts += [(part, *artifact) for artifact in _resolve(endpoint)]
    return [_lock(folder, *entry) for entry in sorted(set(artifacts))]


def _resolve(endpoint: str) -> list[tuple[str, str, str, str, str]]:
    group, artifact, version = endpoint.split(":")
    single = ALONE.get(f"{group}:{artifact}")
    if single:
        return [(group, artifact, version, *single)]
    return [
        (dependency.groupId, dependency.artifactId, dependency.version, dependency.classifier or "", "jar")
        for dependency in jgo.resolve(endpoint)
        if dependency.packaging == "jar"
    ]


def _lock(folder: Path, part: str, group: str, artifact: str, version: str, classifier: str, extension: str) -> Jar:
    draft = Jar(part, group, artifact, version, classifier, extension, 0, "")
    content = httpx.get(f"{repository()}/{draft.path}", follow_redirects=True, timeout=300).raise_for_status().content
    file = jar_path(folder, draft)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return Jar(part, group, artifact, version, classifier, extension, len(content), hashlib.sha256(content).hexdigest())


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main() -> None:
    """Rewrite the lock, and keep the downloaded jars in the folder named on the command line."""
    jars = relock(Path(sys.argv[1]))
    lock = Path(__file__).with_name(LOCK)
    lock.write_text("[\n" + ",\n".join(json.dumps(asdict(jar)) for jar in jars) + "\n]\n", encoding="utf-8")
    sys.stdout.write(f"{len(jars)} jars, {sum(jar.size for jar in jars) / 1e6:.0f} MB locked in {lock.name}\n")


if __name__ == "__main__":
    main()
