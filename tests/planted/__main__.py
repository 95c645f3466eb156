"""`python -m tests.planted [--list] [NAME…]`: plant bugs and check that the tests find each. Exit 1 if a bug was not
found.
"""

import argparse
import sys
import time

from tests.planted.bugs import BUGS
from tests.planted.running import check_sound, copied, look_for


def main() -> int:
    """Plant the named bugs, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.planted")
    parser.add_argument("--list", action="store_true", help="say which bugs there are, and plant none")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of bugs; all of them if none is named")
    known = parser.parse_args()
    strange = sorted(set(known.names) - {bug.name for bug in BUGS})
    if strange:
        parser.error(f"there is no bug {', '.join(strange)}: see --list")
    bugs = [bug for bug in BUGS if not known.names or bug.name in known.names]
    if known.list:
        for bug in bugs:
            say(f"{bug.name:<32} {bug.file}: {bug.says}")
        return 0
    missed = []
    with copied() as copy:
        check_sound(copy, bugs)
        for bug in bugs:
            begun = time.monotonic()
            is_found, said = look_for(copy, bug)
            say(f"{'found' if is_found else 'NOT FOUND':<10} {bug.name:<32} {time.monotonic() - begun:5.1f} s")
            if not is_found:
                missed.append(bug.name)
                say(said)
    say(f"{len(bugs) - len(missed)} of {len(bugs)} planted bugs were found by their tests")
    return 1 if missed else 0


def say(line: str) -> None:
    """Print a line and flush it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
