"""All jobs of one system in one process, each in its own MiniCluster: the layout for one machine.

A separate process per job costs three times the memory and start time of JVM, Flink planner and Python
(docs/decisions/0018). The command line holds each job's name and options, with `--` between two jobs.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

from stream import case_job, entity_job, risk_job
from stream.job import JobOptions, check_mode, parse_options, prepare_process, start, wait

SPECS = {"risk-job": risk_job.spec, "case-job": case_job.spec, "entity-job": entity_job.spec}
SEPARATOR = "--"


def parse(arguments: Sequence[str]) -> Iterator[tuple[str, JobOptions]]:
    """Yield the name and options of each job on the command line. Raise KeyError for an unknown name."""
    for is_separator, words in groupby(arguments, SEPARATOR.__eq__):
        if not is_separator:
            name, *options = words
            if name not in SPECS:
                raise KeyError(f"{name!r} is not a job; the jobs are {', '.join(SPECS)}")
            yield name, parse_options(options)


def main(arguments: Sequence[str]) -> None:
    """Run jobs until SIGTERM, or until one fails for good. A failure ends all of them; no record is lost."""
    jobs = list(parse(arguments))
    for _, options in jobs:
        check_mode(options)
    prepare_process(jobs[0][1])
    wait([start(SPECS[name], options) for name, options in jobs])


if __name__ == "__main__":
    main(sys.argv[1:])
