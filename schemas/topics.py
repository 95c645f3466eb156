"""Names of the logs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Logs of one system. `prefix` separates the logs of tests and benchmarks from those of the running system."""

    prefix: str = ""

    @property
    def payments_inbound(self) -> str:
        """Return the name of the log of payments, which the risk job reads."""
        return f"{self.prefix}payments.inbound"

    @property
    def entities_inbound(self) -> str:
        """Return the name of the log of payments by merchant, terminal and device, which the entity job reads."""
        return f"{self.prefix}entities.inbound"

    @property
    def risk_scored(self) -> str:
        """Return the name of the log of decisions, one per payment."""
        return f"{self.prefix}risk.scored"

    @property
    def cases_inbox(self) -> str:
        """Return the name of the log of flags, commands and ticks, which the case job reads."""
        return f"{self.prefix}cases.inbox"

    @property
    def cases_events(self) -> str:
        """Return the name of the log of case events."""
        return f"{self.prefix}cases.events"

    @property
    def decision_logs(self) -> tuple[str, ...]:
        """Return the logs with as many partitions as the system. The quarantine is not one: it is read as a whole."""
        return self.payments_inbound, self.entities_inbound, self.risk_scored, self.cases_inbox, self.cases_events

    @property
    def ruled_logs(self) -> tuple[str, ...]:
        """Return the logs that rule packs decide, in the order in which a pack is activated in them.

        Entities come first: once a partition of payments uses a pack, the entities to which it sends payments have it
        too.
        """
        return self.entities_inbound, self.payments_inbound

    @property
    def engined_logs(self) -> tuple[str, ...]:
        """Return the logs that an engine decides, in the order in which an engine is activated in them."""
        return self.entities_inbound, self.payments_inbound, self.cases_inbox

    @property
    def archived_logs(self) -> tuple[str, ...]:
        """Return the logs whose records the archive keeps."""
        return self.payments_inbound, self.entities_inbound, self.cases_inbox, self.cases_events

    @property
    def quarantine(self) -> str:
        """Return the name of the log of refused records."""
        return f"{self.prefix}quarantine"
