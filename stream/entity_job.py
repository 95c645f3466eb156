"""Entity job: reads entities.inbound, writes cases.inbox and quarantine."""

from schemas.topics import Topics
from stream.job import JobSpec, parse_options, run
from stream.processors import entity_factory


def spec(topics: Topics, registry_url: str) -> JobSpec:
    """Return the entity job's specification."""
    return JobSpec(
        name="entity",
        source=topics.entities_inbound,
        sinks=(topics.cases_inbox, topics.quarantine),
        factory=entity_factory(topics, registry_url),
    )


if __name__ == "__main__":
    run(spec, parse_options())
