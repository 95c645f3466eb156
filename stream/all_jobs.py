"""All jobs of one system in one process, each in a MiniCluster of its own: what one machine has room for.

Three processes cost three times what starting a JVM, Flink's planner and Python in it costs (docs/decisions/0018).
The command line holds one job's name and options after the other's, with `--` between them.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

from stream import case_job, entity_job, risk_job
from stream.job import JobOptions, check_mode, parse_options, prepare_process, start, wait

SPECS = {"risk-job": risk_job.spec, "case-job": case_job.spec, "entity-job": entity_job.spec}
BETWEEN = "--"


def parse(arguments: Sequence[str]) -> Iterator[tuple[str, JobOptions]]:
    """The jobs that are asked for, by name. Raises KeyError for one that there is not."""
    for is_between, words in groupby(arguments, BETWEEN.__eq__):
        if not is_between:
            name, *options = words
            if name not in SPECS:
                raise KeyError(f"{name!r} is none of {', '.join(SPECS)}")
            yield name, parse_options(options)


def main(arguments: Sequence[str]) -> None:
    """Run jobs until told to stop (SIGTERM), or until one fails for good: that ends them all, and nothing is lost."""
    jobs = list(parse(arguments))
    for _, options in jobs:
        check_mode(options)
    prepare_process(jobs[0][1])
    wait([start(SPECS[name], options) for name, options in jobs])


if __name__ == "__main__":
    main(sys.argv[1:])
