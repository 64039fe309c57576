"""The description of an HTTP door by OpenAPI 3.1, made of its operations and of the types that it answers with."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from vibezen.metrics.serving.errors import Body
from vibezen.metrics.serving.operation import EVENT_STREAM, JSON, Answer, Operation, Parameter

Json = dict[str, Any]

ANY_ERRORS: Final = (400, 414, 431, 500)
"""What any request can be answered with: a name of this server that it does not know or a parameter that is wrong, too
long an address, too many headers, our own mistake."""
SCOPED_ERRORS: Final = (401, 403, 429, 503)
"""And what whoever must show a token can be answered with: too many wrong ones were shown from the same place, or
neither a ticket nor the question can be looked at now."""
ERRORS: Final[Mapping[int, str]] = {
    400: "The request is wrong; `field` names the parameter where one is meant",
    401: "No token, or one that is not valid",
    403: "The token does not allow this, or the request comes from another web page",
    404: "There is no such thing here",
    408: "The body did not arrive in time",
    409: "The state of things does not allow this",
    413: "The body is too large",
    414: "The address is too long",
    415: "The body has a form that is not taken",
    422: "The body is well-formed, and what it says is not allowed",
    429: "Too many requests; `Retry-After` says when to come again",
    431: "The headers are too large",
    500: "A mistake of ours; the log says more under the `X-Request-Id`",
    503: "Redis is away, or too much is going on; `Retry-After` says when to come again, where that helps",
}
_REF: Final = "#/components/schemas/{name}"
_RETRIED: Final = (429, 503)


def describe(
    operations: Iterable[Operation], *, title: str, text: str, version: str, cookie: str | None, open_: bool
) -> Json:
    """The whole document. `cookie`: its name, where one can carry the token. `open_`: no token is needed."""
    listed = list(operations)
    schemas = _Schemas(listed)
    statuses = sorted({status for operation in listed for status in _errors(operation)})
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": title, "description": text, "version": version, "license": {"name": "MIT"}},
        "servers": [{"url": "..", "description": "where this document was read from"}],
        "tags": [{"name": group} for group in dict.fromkeys(operation.group for operation in listed)],
        "paths": {},
        "components": {
            "schemas": schemas.components,
            "responses": {str(status): _error(status, schemas) for status in statuses},
            "headers": {
                "X-Request-Id": {
                    "description": "The name of this request in the server's log: the client's own, where it gave one",
                    "schema": {"type": "string"},
                },
                "Retry-After": {"description": "Seconds until trying again is right", "schema": {"type": "integer"}},
            },
            "securitySchemes": _schemes(cookie),
        },
    }
    for operation in listed:
        described = _operation(operation, schemas, cookie, open_=open_)
        document["paths"].setdefault(operation.path, {})[operation.method.lower()] = described
    return document


class _Schemas:
    """The schemas of all types that operations name, each under a short name of its own."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        types = [Body, *(type_ for operation in operations for type_ in _types(operation))]
        unique = list({repr(type_): type_ for type_ in types}.values())
        found, components = msgspec.json.schema_components(unique, ref_template=_REF)
        names = {name: _short(name) for name in components}
        assert len(set(names.values())) == len(names), "two types have the same name"
        self._of = dict(zip(map(repr, unique), _renamed(list(found), names), strict=True))
        self.components: Json = {
            names[name]: {**_renamed(schema, names), "title": names[name]}
            for name, schema in sorted(components.items(), key=lambda one: names[one[0]])
        }

    def of(self, type_: Any) -> Json:
        schema: Json = self._of[repr(type_)]
        return schema


def _types(operation: Operation) -> Iterable[Any]:
    for answer in (*operation.answers.values(), *([operation.body] if operation.body else [])):
        yield from (type_ for type_ in (answer.type, answer.message) if type_ is not None)
    for parameter in operation.parameters:
        yield parameter.type


def _short(name: str) -> str:
    """`vibezen.metrics.history.Line`, which msgspec makes where there are two of a name, as `HistoryLine`."""
    *_, module, last = ["", "", *name.split(".")]
    return module.title().replace("_", "") + last


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(one, names) for one in schema]
    if not isinstance(schema, dict):
        if isinstance(schema, str) and schema.startswith(_REF.format(name="")):
            return _REF.format(name=names[schema.rpartition("/")[2]])
        return schema
    told = {key: _renamed(value, names) for key, value in schema.items()}
    if isinstance(told.get("description"), str):
        told["description"] = inspect.cleandoc(told["description"])
    return told


def _schemes(cookie: str | None) -> Json:
    schemes: Json = {"bearer": {"type": "http", "scheme": "bearer"}}
    if cookie is not None:
        schemes["cookie"] = {
            "type": "apiKey",
            "in": "cookie",
            "name": cookie,
            "description": "Set by the login link that the server prints at its start.",
        }
    return schemes


def _errors(operation: Operation) -> list[int]:
    scoped = SCOPED_ERRORS if operation.scope is not None else ()
    return sorted({*ANY_ERRORS, *scoped, *operation.errors} - operation.answers.keys())


def _error(status: int, schemas: _Schemas) -> Json:
    more = ("Retry-After",) if status in _RETRIED else ()
    told = {"description": ERRORS[status], "headers": _headers(*more)}
    return {**told, "content": {JSON: {"schema": schemas.of(Body)}}}


def _headers(*more: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *more)}


def _operation(operation: Operation, schemas: _Schemas, cookie: str | None, *, open_: bool) -> Json:
    responses: Json = {str(status): _answer(answer, schemas) for status, answer in operation.answers.items()}
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in _errors(operation)}
    described: Json = {
        "operationId": name_of(operation),
        "tags": [operation.group],
        "summary": operation.summary,
        "description": operation.description,
        "parameters": [_parameter(parameter, schemas) for parameter in operation.parameters],
        "responses": responses,
        "security": _security(operation, cookie, open_=open_),
    }
    if operation.body is not None:
        described["requestBody"] = {
            "description": operation.body.description,
            "required": True,
            "content": _content(operation.body, schemas),
        }
    return {key: value for key, value in described.items() if value or key == "security"}


def name_of(operation: Operation) -> str:
    """`get-api-metrics-history`: also the anchor of its place on the page."""
    path = operation.path.strip("/").replace("/", "-").replace("{", "").replace("}", "")
    return f"{operation.method.lower()}-{path or 'root'}"


def _security(operation: Operation, cookie: str | None, *, open_: bool) -> list[Json]:
    if operation.scope is None:
        return []
    ways: list[Json] = [{"bearer": [operation.scope.value]}]
    if cookie is not None:
        ways.append({"cookie": [operation.scope.value]})
    return [{}, *ways] if open_ else ways


def _parameter(parameter: Parameter, schemas: _Schemas) -> Json:
    schema = schemas.of(parameter.type)
    told: Json = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": {"type": "array", "items": schema} if parameter.repeated else schema,
    }
    if parameter.example is not None:
        told["example"] = [parameter.example] if parameter.repeated else _typed(parameter)
    return told


def _typed(parameter: Parameter) -> Any:
    """The example as a value of the parameter's type."""
    return msgspec.convert(parameter.example, parameter.type, strict=False)


def _answer(answer: Answer, schemas: _Schemas) -> Json:
    told: Json = {"description": answer.description, "headers": _headers()}
    if answer.media:
        told["content"] = _content(answer, schemas)
    return told


def _content(answer: Answer, schemas: _Schemas) -> Json:
    """JSON has its schema; of a stream of events it is that of each one's `data`; files are bytes."""
    content: Json = {}
    for media in answer.media:
        content[media] = {}
        message = answer.message or (answer.type if JSON not in answer.media else None)
        if media == EVENT_STREAM and message is not None:
            content[media] = {"schema": {"type": "string"}, "x-event-data": schemas.of(message)}
        elif media == JSON and answer.type is not None:
            content[media] = {"schema": schemas.of(answer.type)}
    return content
