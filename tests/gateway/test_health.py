"""Whether a gateway lives, and whether it is of use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


def test_a_gateway_lives(http: httpx.Client) -> None:
    answer = http.get("/healthz")

    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_a_gateway_whose_workers_answer_is_ready(http: httpx.Client) -> None:
    assert http.get("/readyz").status_code == 200


def test_an_unknown_path_is_a_problem_with_the_code_of_the_wire(http: httpx.Client) -> None:
    answer = http.get("/nothing/here")

    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"


def test_another_method_is_told_which_there_are(http: httpx.Client) -> None:
    answer = http.put("/healthz")

    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS"


def test_a_parameter_that_is_not_known_is_refused(http: httpx.Client) -> None:
    assert http.get("/healthz?verbose=1").status_code == 400
