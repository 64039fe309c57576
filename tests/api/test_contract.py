"""Whatever a client asks, the API answers as its own description says: asked by schemathesis, which makes requests of
that description, right and wrong ones. The same for the gateway."""

from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
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

RIGHT, WRONG = 6, 3
"""Requests per operation."""
GOOD: Final[dict[str, list[str]]] = {
    "from": ["2023-11-16", "2023-11-16T18:00:00Z", "1700157600", "now-1h"],
    "to": ["now", "2023-11-16T19:00:00Z"],
    "tz": ["UTC", "Europe/Berlin", "+05:30"],
    "metric": ["response_time", "nothing"],
    "step": ["auto", "1h", "1d"],
    "agg": ["count", "p95", "sum,histogram", "rate"],
    "baseline": ["auto", "hour", "previous"],
    "previous": ["60"],
    "group_by": ["provider", "provider,session"],
    "cursor": ["1700157605.0:1"],
    "type": ["system_performance", "cost_analysis"],
    "period": ["24h", "2023-11-16..2023-11-18"],
}
CONDITIONS: Final = ["provider=x", "provider!=x", "session=<b>&'=\""]
"""Values for what would nearly always be wrong, were it made of its pattern alone."""


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
    # Neither the attempts to send what is wrong nor the checks know of the values below.
    wrong = schemathesis.openapi.from_dict(document)
    right = schemathesis.openapi.from_dict(with_good_values(document))
    statuses: Counter[int] = Counter()
    with requests.Session() as session:
        for schema, mode, count in ((right, GenerationMode.POSITIVE, RIGHT), (wrong, GenerationMode.NEGATIVE, WRONG)):
            for found in schema.get_all_operations():
                operation: Any = found
                operation = operation.ok()
                described = document["paths"][operation.path][operation.method]
                if set(described["responses"]["200"]["content"]) == {"text/event-stream"}:
                    continue
                if mode is GenerationMode.POSITIVE or described.get("parameters") or "requestBody" in described:
                    ask(operation.as_strategy(mode), count, url, session, statuses)
        for path, methods in document["paths"].items():
            for method in {"post", "put", "delete"} - methods.keys():
                response = session.request(method, url + path.replace("{id}", "x"), timeout=60)
                assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed"), path
                assert {told.upper() for told in methods} < set(response.headers["allow"].split(", ")), path
    assert sum(count for status, count in statuses.items() if status < 400) >= statuses.total() / 4, statuses


def with_good_values(document: Any) -> Any:
    copy = deepcopy(document)
    for methods in copy["paths"].values():
        for described in methods.values():
            for parameter in described.get("parameters", ()):
                if parameter["name"] == "where":
                    parameter["schema"] = {"type": "array", "items": {"enum": CONDITIONS}, "maxItems": 2}
                elif parameter["name"] in GOOD:
                    parameter["schema"] = {"enum": GOOD[parameter["name"]]}
    return copy


def ask(cases: Any, count: int, url: str, session: requests.Session, statuses: Counter[int]) -> None:
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
            case.query["live"] = "false"
        response = case.call(base_url=url, session=session, timeout=60)
        statuses[response.status_code] += 1
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
    ]
