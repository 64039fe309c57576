"""Whatever a client asks, the API answers as its own description says: asked by schemathesis, which makes requests of
that description, right and wrong ones. The same for the gateway."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import redis
import requests
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.feeding import event
from tests.support.gateways import gateway_in_thread
from tests.support.pipeline import Pipeline
from tests.support.serving import dashboard_in_thread
from tests.support.waiting import WaitUntil

pytestmark = pytest.mark.server

RIGHT, WRONG = 8, 5
"""Requests per operation."""


@pytest.fixture
def api(client: redis.Redis, redis_url: str, tmp_path: Path, wait_until: WaitUntil) -> Iterator[str]:
    """The address of an API with some events in its store."""
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    pipeline.take_in([event(n, 1_700_157_600.0 + n, provider="x") for n in range(10)])
    with dashboard_in_thread(redis_url, tmp_path / "store") as served:
        wait_until(lambda: served.hub.trouble is None)
        yield served.url


@pytest.fixture
def gateway(redis_url: str, tmp_path: Path, wait_until: WaitUntil) -> Iterator[str]:
    with gateway_in_thread(redis_url, tmp_path / "gateway") as door:
        wait_until(door.is_ready)
        yield door.url


def test_api_answers_as_its_description_says(api: str) -> None:
    attack(api)


def test_gateway_answers_as_its_description_says(gateway: str) -> None:
    attack(gateway)


def attack(url: str) -> None:
    """Ask everything that the description at `url` tells of, but for streams, which never end."""
    import schemathesis
    from schemathesis import GenerationMode

    document = requests.get(f"{url}/api/openapi.json", timeout=30).json()
    schema = schemathesis.openapi.from_dict(document)
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
            if document["paths"][operation.path][operation.method]["operationId"] == "get-api-stream":
                continue
            ask(operation.as_strategy(), RIGHT, url, session)
            if operation.query.items or operation.body.items:
                ask(operation.as_strategy(GenerationMode.NEGATIVE), WRONG, url, session)


def ask(cases: Any, count: int, url: str, session: requests.Session) -> None:
    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def answered(case: Any) -> None:
        if case.query and case.query.get("live") == "true":
            case.query.pop("live")
        response = case.call(base_url=url, session=session, timeout=60)
        case.validate_response(response, checks=checks())

    answered()


@cache
def checks() -> list[Callable[..., Any]]:
    import schemathesis.checks as common
    from schemathesis.specs.openapi import checks as openapi

    return [
        common.not_a_server_error,
        openapi.status_code_conformance,
        openapi.content_type_conformance,
        openapi.response_headers_conformance,
        openapi.response_schema_conformance,
        openapi.unsupported_method,
    ]
