"""The entity fold of one partition: it decides rules that count all payments of a merchant, terminal or device.

It reads its own recorded topic, entities.inbound. The risk job writes one EntityPayment there for each payment and each
kind of entity that the active pack has rules of. A payment is decided once, when it arrives here, by the pack that
decided it in its account's fold, from the payments that had arrived before. Nothing is restated: the decisions depend
on the recorded order of this log (docs/decisions/0005).
"""

import pickle
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final, NamedTuple

from domain.engines import ActiveEngine
from domain.payment import Payment, Refusal
from domain.reason import Reason
from domain.risk.compiled_rules import CompiledRule, combine_permille, compile_rule
from domain.risk.events import EntityFlagged, EntityPayment, RulesActivated, entity_flag_id
from domain.risk.families.rule import ENTITY_KEYS, Rule
from domain.risk.histories import Histories, HistoriesFold, Writes
from domain.risk.history import History
from domain.risk.packs import BadRulePack, parse_pack
from domain.state_pickles import read_pickle

MAX_PACKS: Final = 64
"""Maximum number of rule packs kept in a partition, the last activated. A payment comes soon after its decision."""
PACKS_KEY: Final = "\x1fpacks"
"""State entry of the packs. It is no entity's key, since U+001F is refused in ids."""
_KEYS: Final[dict[str, Callable[[Payment], str | None]]] = {
    "device": lambda payment: payment.device_id,
    "merchant": lambda payment: payment.merchant_id,
    "terminal": lambda payment: payment.terminal_id,
}


def entity_keys(rules: tuple[Rule, ...]) -> tuple[str, ...]:
    """Return the kinds of entity that a pack has rules of, in the order in which a payment is sent to them."""
    wanted = {rule.entity_key for rule in rules}
    return tuple(key for key in ENTITY_KEYS if key in wanted)


def entity_payments(
    payment: Payment, keys: tuple[str, ...], pack_id: str, *, is_allowed: bool, partition: int, offset: int
) -> list[EntityPayment]:
    """Return the records for entity folds of a decided payment: one for each of these keys that the payment has."""
    ids = [(key, _KEYS[key](payment)) for key in keys]
    return [
        EntityPayment(
            f"{key}:{name}",
            payment.account_id,
            payment.transaction_id,
            payment.digest,
            payment.event_time_ms,
            payment.amount_minor,
            payment.currency,
            payment.card_id,
            payment.merchant_id,
            payment.merchant_category,
            payment.terminal_id,
            payment.payment_method,
            payment.channel,
            payment.country,
            payment.latitude,
            payment.longitude,
            payment.home_latitude,
            payment.home_longitude,
            payment.device_id,
            payment.counterparty_id,
            pack_id,
            is_allowed,
            partition,
            offset,
        )
        for key, name in ids
        if name is not None
    ]


def payment_of(record: EntityPayment) -> Payment:
    """Return the payment in a record."""
    return Payment(
        transaction_id=record.transaction_id,
        account_id=record.account_id,
        card_id=record.card_id,
        amount_minor=record.amount_minor,
        currency=record.currency,
        event_time_ms=record.event_time,
        merchant_id=record.merchant_id,
        merchant_category=record.merchant_category,
        terminal_id=record.terminal_id,
        payment_method=record.payment_method,
        channel=record.channel,
        country=record.country,
        latitude=record.latitude,
        longitude=record.longitude,
        home_latitude=record.home_latitude,
        home_longitude=record.home_longitude,
        device_id=record.device_id,
        counterparty_id=record.counterparty_id,
        digest=record.content_digest,
    )


class EntityPack(NamedTuple):
    """The rules of a pack that entities decide, compiled, by kind of entity."""

    canonical: str
    flag_at: int
    rules: dict[str, tuple[CompiledRule, ...]]
    window_ms: int


def _entity_pack(canonical: str) -> EntityPack:
    pack = parse_pack(canonical)
    made = [(rule.entity_key, compile_rule(rule, pack.lists)) for rule in pack.rules if rule.entity_key]
    return EntityPack(
        canonical=canonical,
        flag_at=pack.flag_at,
        rules={key: tuple(each for by, each in made if by == key) for key in ENTITY_KEYS},
        window_ms=max((each.needs.window_ms for _, each in made), default=0),
    )


class EntityFold(HistoriesFold):
    """The state of one partition of entities.inbound: a bounded history of payments for each entity.

    `load` reads a state entry by key. At most `hot_entities` histories stay in memory; with None all stay.
    """

    def __init__(
        self, partition: int, load: Callable[[str], bytes | None] = lambda _: None, hot_entities: int | None = None
    ) -> None:
        self._partition = partition
        self._histories = Histories(load, hot_entities)
        packs = load(PACKS_KEY)
        entries: list[tuple[str, str]] = read_pickle(packs) if packs else []
        self._packs = {pack_id: _entity_pack(canonical) for pack_id, canonical in entries}
        self._packs_changed = False
        self._engine = ActiveEngine(load)

    @property
    def engine(self) -> int:
        """Return the number of the engine that decides the next payment."""
        return self._engine.now.number

    def read(self, name: str, data: Mapping[str, Any], offset: int) -> list[EntityFlagged] | Refusal:
        """Fold one decoded record of the log, and return its flags.

        The live job, replays and tests all call this method.
        """
        try:
            if name == "EntityPayment":
                return self.step(EntityPayment(**data), offset)
            if name == "RulesActivated":
                self.activate(RulesActivated(**data))
                return []
            if name == "EngineActivated":
                return self._engine.read(data) or []
        except TypeError as error:
            return Refusal("bad_fields", f"not the fields of a {name}: {error}")
        except BadRulePack as error:
            return Refusal("bad_rule_pack", str(error))
        return Refusal("unexpected_type", f"a {name} has no meaning in this topic")

    def activate(self, record: RulesActivated) -> None:
        """Add an active pack, by which payments will come. Shadow packs send no payments here. Raises BadRulePack."""
        if record.mode != "active":
            return
        pack = self._packs.pop(record.pack_id, None) or _entity_pack(record.pack)
        self._packs[record.pack_id] = pack  # to the end: activated last
        self._packs = dict(list(self._packs.items())[-MAX_PACKS:])
        self._packs_changed = True

    def step(self, record: EntityPayment, offset: int) -> list[EntityFlagged] | Refusal:
        """Count a payment, and decide it from the payments that its entity had before."""
        pack = self._packs.get(record.pack_id)
        if pack is None:
            return Refusal("unknown_pack", f"no pack {record.pack_id[:64]!r} was activated here before this payment")
        payment = payment_of(record)
        history = self._histories.loaded.get(record.entity) or self._histories.read(record.entity)
        if history.is_beyond_bound(payment) or history.holds(payment):
            return []  # delivered again; or older than all payments kept, where it would count for nothing
        if self._histories.are_written:
            self._histories.change(record.entity, history)
            history.remember(payment, 0)
        index = history.insert(payment, 0)
        flagged = [] if record.is_allowed else self._decide(record, history, index, pack, offset)
        history.prune(pack.window_ms, 0)
        return flagged

    def _decide(
        self, record: EntityPayment, history: History, index: int, pack: EntityPack, offset: int
    ) -> list[EntityFlagged]:
        payment = history.payments[index]
        rules = pack.rules.get(record.entity.partition(":")[0], ())
        fired = [
            (each.rule, reason)
            for each in rules
            if each.check(history, index, payment) and (reason := each.reason(history, index)) is not None
        ]
        score = reduce(combine_permille, (reason.points for _, reason in fired), 0)
        if not fired or score < pack.flag_at:
            return []
        strongest = max(fired, key=lambda pair: pair[1].points)[0]  # of equals, the first in the pack
        return [self._flagged(record, score, tuple(reason for _, reason in fired), strongest.typology, offset)]

    def _flagged(
        self, record: EntityPayment, score: int, reasons: tuple[Reason, ...], typology: str, offset: int
    ) -> EntityFlagged:
        return EntityFlagged(
            account_id=record.account_id,
            flag_id=entity_flag_id(record.entity, record.account_id, record.transaction_id, record.content_digest),
            entity=record.entity,
            transaction_id=record.transaction_id,
            content_digest=record.content_digest.hex(),
            event_time=record.event_time,
            amount_minor=record.amount_minor,
            currency=record.currency,
            merchant_id=record.merchant_id,
            terminal_id=record.terminal_id,
            device_id=record.device_id,
            card_id=record.card_id,
            typology=typology,
            score=score,
            reasons=reasons,
            pack_id=record.pack_id,
            partition=self._partition,
            offset=offset,
        )

    def _take_others(self) -> Writes:
        writes: Writes = self._engine.take_writes()
        if self._packs_changed:
            entries = [(pack_id, pack.canonical) for pack_id, pack in self._packs.items()]
            writes[PACKS_KEY] = pickle.dumps(entries, 5)
            self._packs_changed = False
        return writes
