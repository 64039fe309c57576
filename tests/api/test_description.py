"""The description of the API: valid, whole, and shown as a page that is safe to open."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from tests.support.gateways import gateway_in_thread
from tests.support.serving import OPEN, Served, Windows, samples
from vibezen.metrics.serving.answers import Health
from vibezen.metrics.serving.docs_page import docs_page
from vibezen.metrics.serving.openapi import describe
from vibezen.metrics.serving.operation import Answer, Operation, Parameter, Scope

pytestmark = pytest.mark.server


@pytest.fixture
def document(served: Served) -> Any:
    return served.get("/api/openapi.json")


def test_document_is_valid_openapi(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_gateway_describes_itself(redis_url: str, tmp_path: Path) -> None:
    with gateway_in_thread(redis_url, tmp_path) as door:
        told = door.http.get("/api/openapi.json").json()
        validate(told)
        assert told["paths"]["/api/events"]["post"]["security"][-1] == {"bearer": ["write"]}
        assert "Idempotency-Key" in door.http.get("/docs").text


def known(served: Served, path: str, **more: str) -> set[str]:
    """The parameters that the parser of this path knows, as it tells them to who sends another."""
    code, error = served.refused(path.replace("{id}", "x"), nothing="1", **more)
    assert (code, error["field"]) == (400, "nothing"), path
    return set(re.findall(r"[\w.]+", error["message"].partition("known are ")[2]))


def test_parameters_told_are_those_that_are_parsed(served: Served, document: Any) -> None:
    for path, methods in document["paths"].items():
        told = methods.get("get", {}).get("parameters", ())
        if declared := {parameter["name"] for parameter in told if parameter["in"] == "query"}:
            live = known(served, path, live="true") if "live" in declared else set()
            assert declared == known(served, path) | live, path


def test_message_of_the_feed_has_the_shape_that_is_told(served: Served, document: Any, windows: Windows) -> None:
    windows.commit(OPEN, "cost", samples(2.5, at=OPEN))
    told = document["paths"]["/api/stream"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    schema = {**told["x-event-data"], "components": document["components"]}
    with served.socket() as feed:
        message = feed.next()
    assert OAS31Validator(schema).is_valid(message)
    assert not OAS31Validator(schema).is_valid({**message, "windows": 1})


def test_every_operation_tells_what_comes_back_and_what_may_go_wrong(document: Any) -> None:
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            assert told["summary"], path
            assert {"400", "500"} <= told["responses"].keys(), (path, method)
            assert bool(told["security"]) == ({"401", "403"} <= told["responses"].keys()), (path, method)
    assert document["paths"]["/healthz"]["get"]["security"] == []


def test_types_of_one_name_in_two_modules_are_told_apart(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert {"HistoryLine", "ReportLine", "SummarySpan", "ReportSpan"} <= schemas.keys()
    assert set(references(document)) == schemas.keys(), "each is named, and each that is named is there"


def references(tree: Any) -> list[str]:
    return re.findall(r"#/components/schemas/([A-Za-z]+)", msgspec.json.encode(tree).decode())


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def named(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name))]


def test_page_needs_no_script_and_no_foreign_file(served: Served) -> None:
    answer = served.http.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    page = Elements(answer.text)
    assert not {"script", "style", "img", "iframe", "form"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name == "style" or name.startswith("on")]
    assert not [link for link in page.named("href") if re.match(r"[a-z]*:?//|/", link)], "it may stand under any path"
    assert served.http.get("/docs.css").headers["content-type"].startswith("text/css")


def test_links_of_the_page_lead_somewhere(served: Served, document: Any) -> None:
    page = Elements(served.http.get("/docs").text)
    places, links = set(page.named("id")), set(page.named("href"))
    assert {link[1:] for link in links if link.startswith("#")} <= places
    operations = {told["operationId"] for methods in document["paths"].values() for told in methods.values()}
    assert operations <= places
    assert {f"schema-{name}" for name in document["components"]["schemas"]} <= places
    for link in links - {"api/stream"}:
        if not link.startswith("#"):
            assert served.http.get(f"/{link}").status_code in (200, 503), link


def test_what_a_description_says_is_text_and_no_markup() -> None:
    async def handler(_: Any) -> Any: ...

    evil = "<img src=x onerror=alert(1)>`<b>`"
    operation = Operation(
        "/x", handler, evil, {200: Answer(evil, Health)}, evil, (Parameter("p", str, evil, example=evil),)
    )
    document = describe([operation], title=evil, text=evil, version="1", cookie=None, open_=True)
    page = Elements(docs_page(document, "http://localhost"))
    assert not {"img", "b"} & {tag for tag, attributes in page.tags if "class" not in attributes}


def test_curl_shown_asks_for_the_token_only_where_one_is_needed() -> None:
    async def handler(_: Any) -> Any: ...

    read = Operation("/x", handler, "x", {200: Answer("x", Health)})
    for scope, open_, shown in ((Scope.READ, False, True), (Scope.READ, True, False), (None, False, False)):
        operation = msgspec.structs.replace(read, scope=scope)
        page = docs_page(describe([operation], title="x", text="x", version="1", cookie="c", open_=open_), "http://h")
        assert ("Authorization: Bearer $TOKEN" in page.replace("&#34;", '"')) == shown
