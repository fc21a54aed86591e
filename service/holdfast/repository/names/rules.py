"""Retention of names: one record, ``r.rules``, which every worker reads now and then.

Why: docs/decisions.md, "One version is kept unless a rule says more".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.blob_names import check_blob_name
from holdfast.errors import InvalidError
from holdfast.repository.ledger.ledger import Ledger, RecordKind
from holdfast.repository.names.record import Keep

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.stores.record_ports import RecordStore

BELIEVED_SECONDS: Final = 10.0
"""Seconds a worker goes by rules that another has changed since."""

MAX_RULES: Final = 256
_RULES: Final = "rules"


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The retention of names that start with ``prefix``, or of the one ``name``.

    See `Keep` for the rest; what is None is left to a rule of a shorter prefix.
    """

    prefix: str | None = None
    name: str | None = None
    keep_versions: int | None = None
    keep_seconds: int | None = None
    expire_seconds: int | None = None

    def check(self) -> None:
        """Raises InvalidError."""
        if (self.prefix is None) == (self.name is None):
            raise InvalidError("a rule is for a prefix or for a name")
        if self.name is not None:
            check_blob_name(self.name)


class RulesRecord(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    rules: tuple[Rule, ...] = ()


RULES: Final = RecordKind(noun="rules of names", form=RulesRecord, prefix="r")


class _Known:
    """Rules to be looked up by name, each as fast as there are lengths of prefixes."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._names = {rule.name: rule for rule in rules if rule.name is not None}
        self._prefixes = {rule.prefix: rule for rule in rules if rule.prefix is not None}
        self._lengths = sorted({len(prefix) for prefix in self._prefixes})

    def of(self, name: str) -> Keep:
        """The retention of ``name``: a rule of a longer prefix goes before, its own before all."""
        fitting = [
            rule
            for length in self._lengths
            if length <= len(name) and (rule := self._prefixes.get(name[:length])) is not None
        ]
        if name in self._names:
            fitting.append(self._names[name])
        versions, seconds, expire_seconds = 1, None, None
        for rule in fitting:
            versions = rule.keep_versions or versions
            seconds = rule.keep_seconds or seconds
            expire_seconds = rule.expire_seconds or expire_seconds
        return Keep(versions=versions, seconds=seconds, expire_seconds=expire_seconds)


class NameRules:
    """The rules as this worker knows them."""

    def __init__(self, records: RecordStore, *, monotonic: Callable[[], float]) -> None:
        """``monotonic`` gives seconds that only rise."""
        self._ledger = Ledger(records)
        self._monotonic = monotonic
        self._known = _Known(())
        self._read_at: float | None = None

    def known(self, name: str) -> Keep:
        """The retention of ``name`` by the rules that were read last. In any thread."""
        return self._known.of(name)

    async def of(self, name: str) -> Keep:
        """The retention of ``name``, by rules that were read lately."""
        now = self._monotonic()
        if self._read_at is None or now - self._read_at >= BELIEVED_SECONDS:
            await self.read()
        return self.known(name)

    async def read(self) -> tuple[tuple[Rule, ...], int]:
        """The rules as they are now, and their revision: 0 where none were ever made."""
        now = self._monotonic()
        held = await self._ledger.find(RULES, _RULES)
        rules, revision = ((), 0) if held is None else (held.record.rules, held.revision)
        return self._learn(rules, now), revision

    async def change(
        self, rules: Sequence[Rule], *, expected: int | None
    ) -> tuple[tuple[Rule, ...], int]:
        """Replace all rules; ``expected`` is their revision, unless they are so already.

        Raises ConflictError, InvalidError.
        """
        if len(rules) > MAX_RULES:
            raise InvalidError(f"there are at most {MAX_RULES} rules")
        for rule in rules:
            rule.check()
        if len({(rule.prefix, rule.name) for rule in rules}) < len(rules):
            raise InvalidError("there is one rule for each prefix or name")
        wanted, now = RulesRecord(rules=tuple(rules)), self._monotonic()
        held = await self._ledger.replace(RULES, _RULES, wanted, expected=expected)
        return self._learn(held.record.rules, now), held.revision

    def _learn(self, rules: tuple[Rule, ...], at: float) -> tuple[Rule, ...]:
        self._known, self._read_at = _Known(rules), at
        return rules
