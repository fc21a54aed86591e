"""The rules for docker-compose.yml and the files around it, checked without Docker."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
import yaml
from tests.deploy.shipped import DEPLOY, PASSWORDS, ROOT, read_environment_file

from holdfast.gateway.tokens import hash_of, read_tokens

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
SECRETS: Final = {name for name in PASSWORDS if name.endswith("_PASSWORD")}
PINNED: Final = re.compile(r"^([a-z0-9-]+==\S+)", re.MULTILINE)


def test_two_ports_are_published_and_only_on_loopback() -> None:
    published = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}

    assert published == {
        "nats-1": ["127.0.0.1:${HOLDFAST_PORT:-4222}:4222"],
        "gateway": ["127.0.0.1:${HOLDFAST_HTTP_PORT:-7777}:7777"],
    }


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_container_has_no_rights_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] <= 512
    assert service.get("cap_add", []) == (["DAC_OVERRIDE"] if name.startswith("nats-") else [])


@pytest.mark.parametrize("user", ["worker", "admin", "client"])
def test_who_has_a_user_gets_no_password_but_its_own(user: str) -> None:
    given = read_environment_file(DEPLOY / f"compose.{user}.env")

    assert given["NATS_USER"] == user
    assert given["NATS_PASSWORD"] == f"${{{user.upper()}_PASSWORD}}"
    assert {name: given[name] for name in SECRETS} == dict.fromkeys(SECRETS, "")


def test_a_worker_is_ended_only_after_it_has_drained() -> None:
    for name, service in SERVICES.items():
        if name.startswith(("worker", "gateway")):
            grace = int(service["stop_grace_period"].removesuffix("s"))
            settings = service["environment"]
            drain = (
                settings.get("HOLDFAST_DRAIN_SECONDS") or settings["HOLDFAST_GATEWAY_DRAIN_SECONDS"]
            )
            assert int(drain) < grace


def test_the_token_of_the_gateway_is_the_one_that_is_told() -> None:
    (token,) = read_tokens((DEPLOY / "gateway" / "development-tokens.json").read_bytes())
    told = re.findall(r"Bearer (hf_[a-z_-]+)", (DEPLOY / "README.md").read_text())

    assert {hash_of(text) for text in told} == {token.hash}
    assert token.may("admin", "/snapshots/blog:1")


def test_the_image_has_the_versions_that_were_tested_and_no_others() -> None:
    of_image = PINNED.findall((DEPLOY / "requirements.lock").read_text())
    tested = PINNED.findall((ROOT / "requirements.lock").read_text())

    assert len(of_image) > 10
    assert set(of_image) <= set(tested)


@pytest.mark.parametrize(
    "path", ["deploy/requirements.lock", "requirements-build.lock", "deploy/Dockerfile"]
)
def test_nothing_names_a_package_index(path: str) -> None:
    text = (ROOT / path).read_text()

    assert "://" not in text
    assert "--index-url" not in text
