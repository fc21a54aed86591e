"""The flags say what the configuration has."""

from __future__ import annotations

from dataclasses import fields

from holdfast.cli.base.settings import ConnectionFlags, WorkerFlags
from holdfast.runtime.config import SETTINGS, flag_of
from holdfast.transport.options import NatsOptions


def test_every_setting_has_a_flag() -> None:
    flags = {flag.name.replace("_", "-") for flag in fields(WorkerFlags)}

    expected = {flag_of(f"nats.{name}") for name in NatsOptions.__struct_fields__}
    expected |= {flag_of(name) for name in SETTINGS}
    assert flags == expected | {"config", "context"}


def test_a_flag_sets_its_setting() -> None:
    flags = WorkerFlags(
        server="nats://a:1,b:2", connection_name="n", tls_first=True, prefix="p", max_uploads=3
    )

    config = flags.load().config

    assert config.nats.servers == ("nats://a:1", "nats://b:2")
    assert (config.nats.name, config.nats.tls_first) == ("n", True)
    assert (config.prefix, config.max_uploads) == ("p", 3)


def test_flags_that_were_not_given_leave_the_defaults() -> None:
    sources = ConnectionFlags().load().sources

    assert set(sources.values()) == {"default", "host name"}
