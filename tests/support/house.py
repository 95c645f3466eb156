"""What the source says about itself: modules, imports, names and docstrings, and the rules that they keep.

Each rule is a function from a folder that holds the source to the list of its violations, so that a test can run it on
this project and on a copy with a planted violation.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median, quantiles
from typing import Final

PACKAGES: Final = ("schemas", "domain", "stream", "projections", "generator", "migrations", "infra", "console")

PACKAGE_IMPORTS: Final[dict[str, set[str]]] = {
    "schemas": set(),
    "domain": set(),
    "stream": {"domain", "schemas"},
    "projections": {"domain", "schemas"},
    "generator": {"domain", "schemas"},
    "migrations": set(),
    "infra": {"schemas"},
    "console": {"schemas", "domain", "projections", "generator", "migrations", "infra"},
}
"""What each top-level package may import of the others. Nothing imports the jobs in stream/: they are programs."""

HELPERS: Final = {"terminal", "times", "waiting", "watchers", "display"}
"""Modules of console/ that every room may use."""
LOWER_ROOMS: Final = {"rules", "people", "privacy", "views", "webhooks", "evidence"}
"""Rooms below the wiring: they know neither the wiring nor an entry point."""
UPPER_ROOMS: Final = {"cases", "payments", "history", "workers", "system", "scoring", "monitor"}
"""Rooms above the wiring."""
ENTRY_POINTS: Final = {"cli", "web", "bench"}
ROOM_IMPORTS: Final[dict[str, set[str]]] = {
    "cli": UPPER_ROOMS | LOWER_ROOMS | HELPERS | {"wiring", "bench"},
    "web": UPPER_ROOMS | LOWER_ROOMS | HELPERS | {"wiring"},
    "bench": UPPER_ROOMS | LOWER_ROOMS | HELPERS | {"wiring"},
    **{room: UPPER_ROOMS | LOWER_ROOMS | HELPERS | {"wiring"} for room in UPPER_ROOMS},
    "wiring": LOWER_ROOMS | HELPERS,
    **dict.fromkeys(LOWER_ROOMS, LOWER_ROOMS | HELPERS),
    **dict.fromkeys(HELPERS, HELPERS),
}
"""What each room of console/ may import of the other rooms; that no two rooms import each other is a rule besides."""

SETTINGS_MAY_BE_READ_IN: Final = re.compile(
    r"console/cli/.*|console/web/__main__\.py|console/workers/.*|console/history/whatif_job\.py|infra/settings\.py"
)
"""Programs: the entry points of people, and of workers."""
REGISTRY_MAY_BE_MADE_IN: Final = re.compile(
    r"schemas/registry\.py|projections/logs/kafka_logs\.py|stream/processors\.py|stream/reference/textbook\.py"
)
"""One place for each side: the wiring, and the jobs, which Flink starts in processes of their own."""

MAX_FILES: Final = 22
"""Files of a folder of production code, beside its subfolders."""
MAX_LINES: Final = 500
"""Lines of a file of production code; a longer one gives its reason in its docstring, after "This file is"."""

VAGUE_NAMES: Final = frozenset(Path(__file__).with_name("vague_names.txt").read_text(encoding="utf-8").split())
"""Names that no class may bear: pronouns, participles, prepositions and conjunctions."""

VERBS: Final = frozenset((Path(__file__).with_name("verbs.txt")).read_text(encoding="utf-8").split())
"""Verbs in the imperative that the docstring of a function may begin with."""


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: its path under the root, its dotted name, and its syntax tree."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    @property
    def place(self) -> str:
        """Return the path with slashes, as messages show it."""
        return self.path.as_posix()


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def read_modules(root: Path, packages: Iterable[str] = PACKAGES) -> list[Module]:
    """Read every Python file of these packages, in the order of their paths."""
    found = []
    for package in packages:
        for file in sorted((root / package).rglob("*.py")):
            path, text = file.relative_to(root), file.read_text(encoding="utf-8")
            name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
            found.append(Module(path, name, text, _parse(text)))
    return found


def imported_names(module: Module) -> Iterator[str]:
    """Yield the dotted name of everything that a module imports: `a.b` and, of `from a import b`, `a.b` too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def import_graph(modules: list[Module]) -> dict[str, set[str]]:
    """Map each module to those of `modules` that it imports."""
    names = {module.name for module in modules}

    def targets(module: Module) -> Iterator[str]:
        for name in imported_names(module):
            for candidate in (name, name.rpartition(".")[0]):
                if candidate in names and candidate != module.name:
                    yield candidate
                    break

    return {module.name: set(targets(module)) for module in modules}


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a module, nested ones too."""
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def classes(module: Module) -> Iterator[ast.ClassDef]:
    """Yield every class of a module."""
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef))


def begins_with_verb(docstring: str) -> bool:
    """Tell whether the first word is a verb in the imperative."""
    first = re.match(r"[`'\"(]*([A-Za-z-]+)", docstring)
    return first is not None and first[1].lower() in VERBS


# -- rules ------------------------------------------------------------------------------------------------------------


def package_violations(root: Path) -> list[str]:
    """List imports of a top-level package that the design does not allow."""
    return [
        f"{module.place} imports {name}: {module.path.parts[0]}/ may not import {name.partition('.')[0]}/"
        for module in read_modules(root)
        for name in imported_names(module)
        if (target := name.partition(".")[0]) in PACKAGES
        and target != module.path.parts[0]
        and target not in PACKAGE_IMPORTS[module.path.parts[0]]
    ]


def room_violations(root: Path) -> list[str]:
    """List imports between rooms of console/ that the table does not allow."""
    found = []
    for module in read_modules(root, ["console"]):
        room = module.name.split(".")[1] if "." in module.name else ""
        for name in imported_names(module):
            parts = name.split(".")
            if parts[0] == "console" and len(parts) > 1 and room and parts[1] not in ROOM_IMPORTS[room] | {room}:
                found.append(f"{module.place} imports {name}: {room} may not import {parts[1]}")
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of two or more nodes that import each other, directly or by way of others (Tarjan, 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in number:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], number[target])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


def room_graph(root: Path) -> dict[str, set[str]]:
    """Map each room of console/ to the rooms that it imports."""
    modules = read_modules(root, ["console"])
    rooms = {module.name: ".".join(module.name.split(".")[:2]) for module in modules}
    graph: dict[str, set[str]] = {room: set() for room in rooms.values()}
    for name, targets in import_graph(modules).items():
        graph[rooms[name]] |= {rooms[target] for target in targets} - {rooms[name], "console"}
    return graph


def circle_violations(root: Path) -> list[str]:
    """List circles between modules, and between rooms of console/."""
    return [
        f"circle of {what}: {' -> '.join(group)}"
        for what, graph in (("modules", import_graph(read_modules(root))), ("rooms", room_graph(root)))
        for group in circles(graph)
    ]


def domain_violations(root: Path) -> list[str]:
    """List what makes domain/ depend on more than its log: packages, clocks, randomness, the environment."""
    found = []
    for module in read_modules(root, ["domain"]):
        for name in imported_names(module):
            top = name.partition(".")[0]
            if top in {"random", "secrets", "time", "datetime", "os"}:
                found.append(f"{module.place} imports {top}: a fold takes time and chance from its log")
            elif top == "msgspec" and module.path.name != "record.py":
                found.append(f"{module.place} imports msgspec: only domain/record.py may")
        if "uuid4" in module.text:
            found.append(f"{module.place} names uuid4: ids derive from their cause")
    return found


def class_name_violations(root: Path) -> list[str]:
    """List class names that two classes bear, and names that say nothing."""
    places: dict[str, list[str]] = {}
    for module in read_modules(root):
        for node in classes(module):
            places.setdefault(node.name, []).append(f"{module.place}:{node.lineno}")
    return [f"class {name} is defined in {' and '.join(found)}" for name, found in places.items() if len(found) > 1] + [
        f"{found[0]}: class {name}: a class is named by a noun" for name, found in places.items()
        if name.lstrip("_") in VAGUE_NAMES
    ]  # fmt: skip


def docstring_violations(root: Path, packages: Iterable[str] = PACKAGES) -> list[str]:
    """List function docstrings that do not begin with a verb in the imperative."""
    return [
        f"{module.place}:{node.lineno} {node.name}: {docstring.partition(chr(10))[0]}"
        for module in read_modules(root, packages)
        for node in functions(module)
        if (docstring := ast.get_docstring(node)) is not None and not begins_with_verb(docstring)
    ]


def _call_violations(root: Path, callee: str, allowed: re.Pattern[str], why: str) -> list[str]:
    return [
        f"{module.place}:{node.lineno} calls {callee}(): {why}"
        for module in read_modules(root)
        if not allowed.fullmatch(module.place)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == callee
    ]


def settings_violations(root: Path) -> list[str]:
    """List calls of Settings() outside the programs."""
    return _call_violations(root, "Settings", SETTINGS_MAY_BE_READ_IN, "take the parts that are needed as arguments")


def registry_violations(root: Path) -> list[str]:
    """List registries that are made outside the wiring."""
    return _call_violations(root, "SchemaRegistry", REGISTRY_MAY_BE_MADE_IN, "take a decoder or an encoder instead")


def size_violations(root: Path) -> list[str]:
    """List folders with too many files, and long files that give no reason."""
    modules = read_modules(root)
    per_folder = Counter(module.path.parent.as_posix() for module in modules if module.path.name != "__init__.py")
    return [
        f"{folder}/ has {count} Python files, more than {MAX_FILES}"
        for folder, count in per_folder.items()
        if count > MAX_FILES
    ] + [
        f"{module.place} has {lines} lines, more than {MAX_LINES}, and no reason in its docstring"
        for module in modules
        if (lines := module.text.count("\n")) > MAX_LINES
        and "This file is" not in (ast.get_docstring(module.tree) or "")
    ]


RULES: Final = {
    "packages": package_violations,
    "rooms": room_violations,
    "circles": circle_violations,
    "domain": domain_violations,
    "class-names": class_name_violations,
    "docstrings": docstring_violations,
    "settings": settings_violations,
    "registry": registry_violations,
    "sizes": size_violations,
}
"""Each rule by its name."""


# -- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFigures:
    """Figures of one folder of source: lengths are in lines."""

    folder: str
    files: int
    lines: int
    functions: int
    median: float
    p90: float
    longest: int
    docstrings: int
    """Number of functions with a docstring."""
    with_verb: int
    """Number of function docstrings that begin with a verb."""


def measure_folder(folder: str, modules: list[Module]) -> FolderFigures:
    """Measure the modules of one folder."""
    nodes = [node for module in modules for node in functions(module)]
    lengths = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes]
    texts = [text for node in nodes if (text := ast.get_docstring(node)) is not None]
    return FolderFigures(
        folder=folder,
        files=len(modules),
        lines=sum(module.text.count("\n") for module in modules),
        functions=len(nodes),
        median=median(lengths) if lengths else 0,
        p90=quantiles(lengths, n=10)[-1] if len(lengths) > 1 else 0,
        longest=max(lengths, default=0),
        docstrings=len(texts),
        with_verb=sum(begins_with_verb(text) for text in texts),
    )


def one_word_classes(modules: list[Module]) -> list[str]:
    """Return the public class names of one word, in the order of the alphabet."""
    names = {node.name for module in modules for node in classes(module)}
    return sorted(name for name in names if re.fullmatch(r"[A-Z][a-z0-9]*", name))
