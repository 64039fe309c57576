"""Which SQL may be run over a store: one statement that reads its tables, and nothing else.

DuckDB itself is shut in as well (`sandbox`). This comes first because it can say in one line what is not allowed, and
because it also keeps from being read as a file what a view reads: beyond what is committed, such a file is not data.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from vibezen.metrics.errors import SqlError
from vibezen.metrics.event_reader import duckdb_module

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TABLES: Final = ("events", "rollups")
FUNCTIONS: Final = ("range", "generate_series", "unnest", "json_each", "json_tree", "repeat")
"""Functions that may stand for a table: those that make rows of what they are given."""
MAX_CHARS: Final = 100_000


def only_statement(connection: "DuckDBPyConnection", text: str) -> str:
    """The one statement in `text`. Raises SqlError when it has none, several, or one that does more than read."""
    duckdb = duckdb_module()
    if len(text) > MAX_CHARS:
        raise SqlError(f"the statement has {len(text):,} characters; at most {MAX_CHARS:,} are read")
    try:
        statements = connection.extract_statements(text)
    except duckdb.Error as error:
        raise SqlError(in_short(str(error))) from None
    if len(statements) != 1:
        told = "no statement" if not statements else f"{len(statements)} statements"
        raise SqlError(f"{told} where one is expected")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:
        raise SqlError(f"{kind.name}: only SELECT is allowed (also WITH, FROM, VALUES, DESCRIBE, SUMMARIZE)")
    query: str = statements[0].query.strip().removesuffix(";")
    _check(_tree(connection, query))
    return query


def _tree(connection: "DuckDBPyConnection", query: str) -> Any:
    ((text,),) = connection.execute("SELECT json_serialize_sql($1::VARCHAR)", [query]).fetchall()
    tree = msgspec.json.decode(text)
    if tree["error"]:
        raise SqlError(tree["error_message"])
    return tree


def _check(tree: Any) -> None:
    named = {entry["key"].lower() for node in _nodes(tree) for entry in node.get("cte_map", {}).get("map", ())}
    for node in _nodes(tree):
        kind = node.get("type")
        if kind == "TABLE_FUNCTION":
            name = node["function"].get("function_name", "").lower()
            if name not in FUNCTIONS:
                raise SqlError(f"{name}() is not allowed: only {' and '.join(TABLES)} can be read")
        elif kind == "BASE_TABLE":
            path = [part.lower() for part in node["qualified_name"]["path"]]
            if path[0] != "information_schema" and (len(path) > 1 or path[0] not in (*TABLES, *named)):
                raise SqlError(f"{'.'.join(path)}: there is no such table; there are {' and '.join(TABLES)}")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object in a tree of JSON; of any depth, so without recursion."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def in_short(message: str) -> str:
    """DuckDB's message without its kind and its advice: what is wrong, and the place in the line."""
    lines = [line for line in message.splitlines() if line.strip()]
    first = lines[0].split(" Error: ", 1)[-1]
    shown = [index for index, line in enumerate(lines) if line.startswith("LINE ")]
    return "\n".join([first, *(lines[shown[0] : shown[0] + 2] if shown else ())])
