"""Case job: reads cases.inbox, writes cases.events and quarantine."""

from schemas.topics import Topics
from stream.job import JobSpec, parse_options, run
from stream.processors import case_factory


def spec(topics: Topics, registry_url: str) -> JobSpec:
    """Return the case job's specification."""
    return JobSpec(
        name="case",
        source=topics.cases_inbox,
        sinks=(topics.cases_events, topics.quarantine),
        factory=case_factory(topics, registry_url),
        is_awaited=True,
    )


if __name__ == "__main__":
    run(spec, parse_options())
