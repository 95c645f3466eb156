"""The names of the logs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """The logs of one system; `prefix` sets apart those of tests and benchmarks."""

    prefix: str = ""

    @property
    def payments_inbound(self) -> str:
        """What the risk job decides on."""
        return f"{self.prefix}payments.inbound"

    @property
    def entities_inbound(self) -> str:
        """What the entity job decides on."""
        return f"{self.prefix}entities.inbound"

    @property
    def risk_scored(self) -> str:
        """One decision for every payment."""
        return f"{self.prefix}risk.scored"

    @property
    def cases_inbox(self) -> str:
        """What the case job decides on."""
        return f"{self.prefix}cases.inbox"

    @property
    def cases_events(self) -> str:
        """What became of the cases."""
        return f"{self.prefix}cases.events"

    @property
    def decision_logs(self) -> tuple[str, ...]:
        """The logs with one partition for each of the system's; quarantine is read as a whole."""
        return self.payments_inbound, self.entities_inbound, self.risk_scored, self.cases_inbox, self.cases_events

    @property
    def ruled_logs(self) -> tuple[str, ...]:
        """The logs that are decided by rule packs, in the order in which a pack is activated in them.

        Entities first: whatever a partition of payments decides by a pack, the pack is known where it is sent on to.
        """
        return self.entities_inbound, self.payments_inbound

    @property
    def engined_logs(self) -> tuple[str, ...]:
        """The logs that are decided by an engine, in the order in which one is activated in them."""
        return self.entities_inbound, self.payments_inbound, self.cases_inbox

    @property
    def archived_logs(self) -> tuple[str, ...]:
        """The logs of which the archive keeps every record."""
        return self.payments_inbound, self.entities_inbound, self.cases_inbox, self.cases_events

    @property
    def quarantine(self) -> str:
        """What could not be decided on."""
        return f"{self.prefix}quarantine"
