"""Risk job: reads payments.inbound, writes risk.scored, cases.inbox, entities.inbound and quarantine."""

from schemas.topics import Topics
from stream.job import JobSpec, parse_options, run
from stream.processors import risk_factory


def spec(topics: Topics, registry_url: str) -> JobSpec:
    """Return the risk job's specification."""
    return JobSpec(
        name="risk",
        source=topics.payments_inbound,
        sinks=(topics.risk_scored, topics.cases_inbox, topics.entities_inbound, topics.quarantine),
        factory=risk_factory(topics, registry_url),
    )


if __name__ == "__main__":
    run(spec, parse_options())
