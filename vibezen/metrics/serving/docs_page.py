"""The page `/docs`: the description of the API for people, made on the server, without scripts and foreign files."""

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from markupsafe import Markup, escape

from vibezen.metrics.serving.openapi import ERRORS, Json
from vibezen.metrics.serving.operation import EVENT_STREAM

if TYPE_CHECKING:
    from jinja2 import Template

FOLDER: Final = Path(__file__).resolve().parent
TEMPLATE: Final = "docs.html.j2"
STYLE: Final = "docs.css"


def docs_page(document: Json, url: str) -> str:
    """The whole page of an OpenAPI document. `url`: what the calls it shows are sent to."""
    listed = [
        _operation(path, method, described, url)
        for path, methods in document["paths"].items()
        for method, described in methods.items()
    ]
    groups = [
        {"name": tag["name"], "operations": [one for one in listed if one["group"] == tag["name"]]}
        for tag in document["tags"]
    ]
    components = document["components"]
    errors = {status: ERRORS[int(status)] for status in components["responses"]}
    return _template().render(info=document["info"], groups=groups, errors=errors, schemas=components["schemas"])


def style() -> bytes:
    return (FOLDER / STYLE).read_bytes()


def _operation(path: str, method: str, described: Json, url: str) -> Json:
    responses: Mapping[str, Json] = described["responses"]
    parameters = described.get("parameters", [])
    query = urlencode({one["name"]: _example(one) for one in parameters if "example" in one and one["in"] == "query"})
    address = f"{path}?{query}" if query else path
    security = [scheme for scheme in described["security"] if scheme]
    return {
        "anchor": described["operationId"],
        "method": method.upper(),
        "path": path,
        "group": described["tags"][0],
        "summary": described["summary"],
        "description": described.get("description", ""),
        "scope": next(iter(security[0].values()))[0] if security else None,
        "parameters": parameters,
        "body": described.get("requestBody"),
        "answers": [
            {"status": status, "description": answer["description"], "content": answer.get("content", {})}
            for status, answer in responses.items()
            if "$ref" not in answer
        ],
        "errors": [status for status, answer in responses.items() if "$ref" in answer],
        "curl": _curl(method, url + address, described),
        "try": address.lstrip("/") if method == "get" and "{" not in path and _is_whole(parameters) else None,
    }


def _example(parameter: Json) -> str:
    example = parameter["example"]
    return str(example[0] if isinstance(example, list) else example)


def _is_whole(parameters: Sequence[Json]) -> bool:
    return all("example" in one for one in parameters if one["required"])


def _curl(method: str, url: str, described: Json) -> str:
    words = ["curl"]
    contents = [media for answer in described["responses"].values() for media in answer.get("content", {})]
    if EVENT_STREAM in contents and "application/json" not in contents:
        words.append("-N")
    if method != "get":
        words += ["-X", method.upper()]
    if any(described["security"]) and {} not in described["security"]:
        words += ["-H", "Authorization: Bearer $TOKEN"]
    body = described.get("requestBody")
    if body is not None:
        words += ["--data-binary", "@" + ("events.jsonl" if "application/x-ndjson" in body["content"] else "body.json")]
    return " ".join(f'"{word}"' if "$" in word else shlex.quote(word) for word in [*words, url])


def _codes(text: str) -> Markup:
    """Text with what stands between backticks as code; all else is escaped."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped one step before


def _prose(text: str) -> Markup:
    """The same in paragraphs."""
    parts = [part for part in re.split(r"\n\s*\n", text.strip()) if part]
    return Markup("\n").join(Markup("<p>{}</p>").format(_codes(part)) for part in parts)


def _last(reference: str) -> str:
    return reference.rpartition("/")[2]


def _shown(schemas: Sequence[Json]) -> list[Json]:
    """Alternatives for people: a number may always be a whole one."""
    kinds = {schema.get("type") for schema in schemas}
    return [schema for schema in schemas if not (schema.get("type") == "integer" and "number" in kinds)]


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(last=_last, shown=_shown)
    environment.filters.update(codes=_codes, prose=_prose)
    return environment.get_template(TEMPLATE)
