"""Print the figures of the source: `python -m tests.measure [--json]`."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.support.house import (
    PACKAGES,
    RULES,
    circles,
    import_graph,
    measure_folder,
    one_word_classes,
    read_modules,
    room_graph,
    room_violations,
)

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Measure every folder of the source and count the violations of each rule."""
    modules = read_modules(ROOT, [*PACKAGES, "tests"])
    folders = sorted({module.path.parent.as_posix() for module in modules})
    rows = [
        measure_folder(folder, [module for module in modules if module.path.parent.as_posix() == folder])
        for folder in folders
    ]
    production = read_modules(ROOT)
    rows.append(measure_folder("all production code", production))
    graph = room_graph(ROOT)
    figures = {
        "folders": [asdict(row) for row in rows],
        "rooms of console/": len(graph),
        "import arrows between rooms": sum(len(targets) for targets in graph.values()),
        "import arrows that point up": len(room_violations(ROOT)),
        "circles of modules": len(circles(import_graph(production))),
        "circles of rooms": len(circles(graph)),
        "violations by rule": {name: len(rule(ROOT)) for name, rule in RULES.items()},
        "one-word classes": one_word_classes(production),
    }
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps(figures, indent=2) + "\n")
        return
    names = ("folder", "files", "lines", "functions", "median", "p90", "longest", "verb first")
    sys.stdout.write("{:<32}{:>6}{:>8}{:>10}{:>8}{:>6}{:>8}{:>12}\n".format(*names))
    for row in rows:
        share = f"{row.with_verb / row.docstrings:.0%}" if row.docstrings else "-"
        sys.stdout.write(
            f"{row.folder:<32}{row.files:>6}{row.lines:>8,}{row.functions:>10,}{row.median:>8.0f}{row.p90:>6.0f}"
            f"{row.longest:>8}{share:>12}\n"
        )
    for name, value in figures.items():
        if name != "folders":
            sys.stdout.write(f"{name}: {', '.join(value) if isinstance(value, list) else value}\n")


if __name__ == "__main__":
    main()
