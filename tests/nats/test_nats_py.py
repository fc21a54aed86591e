"""The insides of nats-py that are relied on: it is pinned to this minor version."""

from __future__ import annotations

import inspect
import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import nats
import pytest
from nats.aio.client import Client
from nats.aio.transport import Transport
from tests.nats.tools import next_of, receive

from holdfast.transport import nats_py as nats_py_module
from holdfast.transport.wire import Wire

if TYPE_CHECKING:
    from holdfast.transport.connection import Connection

pytestmark = pytest.mark.nats

STATE: Final = {
    "_pending": list,
    "_pending_data_size": int,
    "_subs": dict,
    "_sid": int,
    "_max_payload": int,
    "_server_info": dict,
    "_transport": type(None),
}


def test_it_is_the_version_whose_methods_are_replaced() -> None:
    assert version("nats-py").startswith("2.16.")


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_close", ["self", "status", "do_cbs"]),
        ("_connect_to_server", ["self", "s"]),
        ("_read_loop", ["self"]),
        ("_process_op_err", ["self", "e"]),
        ("_process_ping", ["self"]),
        ("_process_pong", ["self"]),
        ("_process_err", ["self", "err_msg"]),
        ("_process_info", ["self", "info", "initial_connection"]),
        ("_flush_pending", ["self", "force_flush"]),
        ("force_reconnect", ["self"]),
    ],
)
def test_its_methods_are_called_as_they_are_declared(method: str, parameters: list[str]) -> None:
    function = getattr(Client, method)

    assert inspect.iscoroutinefunction(function)
    assert list(inspect.signature(function).parameters) == parameters


def test_its_state_has_the_form_that_is_relied_on() -> None:
    client = Client()

    state = {name: type(getattr(client, name)) for name in STATE}

    assert state == STATE


def test_of_the_parser_it_only_ever_asks_for_a_reset() -> None:
    source = inspect.getsource(Client).replace(inspect.getsource(Client._read_loop), "")

    assert set(re.findall(r"self\._ps\.(\w+)", source)) == {"reset"}


def test_of_the_transport_it_asks_for_nothing_that_is_not_there() -> None:
    abstract = Transport.__abstractmethods__
    used = set(re.findall(r"self\._transport\.(\w+)", inspect.getsource(Client)))

    assert used <= abstract
    assert abstract <= set(dir(Wire))


def test_of_a_subscription_it_looks_at_nothing_that_is_not_there() -> None:
    passages = (Client._close, Client._attempt_reconnect)
    used = {
        name
        for passage in passages
        for name in re.findall(r"\bsub\.(\w+)", inspect.getsource(passage))
    }

    assert {"_subject", "_queue"} <= used
    subscription = nats_py_module._Subscription("a", "q")
    assert {name for name in used if not hasattr(subscription, name)} == set()


async def test_other_users_of_it_in_the_same_process_are_unaffected(
    connection: Connection, nats_url: str, fresh_name: str
) -> None:
    stock = await nats.connect(nats_url)
    subscription = await stock.subscribe(fresh_name)
    await stock.flush()

    connection.send(fresh_name, bytes(300_000), headers={"A": "b"}, reply="r")
    message = await subscription.next_msg(30)
    messages = await receive(connection, f"{fresh_name}.back")
    await stock.publish(f"{fresh_name}.back", b"back", headers={"C": "d"})

    assert (len(message.data), message.headers, message.reply) == (300_000, {"A": "b"}, "r")
    back = await next_of(messages)
    assert (bytes(back.data), back.headers) == (b"back", {"C": "d"})
    assert (type(stock._ps), type(stock)) == (type(Client()._ps), Client)
    await stock.close()
