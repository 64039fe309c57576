"""`vibezen.yaml` and its overrides, as one frozen `Settings`.

Order, strongest first: arguments, environment (`VIBEZEN_METRICS__REDIS__URL`), the file, defaults. A wrong setting is
one line that names file, key, value and what was expected; nothing starts half-configured.
"""

import os
import re
from collections.abc import Collection, Mapping
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from vibezen.metrics.errors import ConfigError
from vibezen.metrics.event import MAX_BATCH_EVENTS, is_name
from vibezen.metrics.origin import ORIGIN_RULE, is_origin
from vibezen.metrics.settings import Settings

FILE_NAME: Final = "vibezen.yaml"
ENVIRONMENT_PREFIX: Final = "VIBEZEN_METRICS__"
DEMO_VARIABLE: Final = "VIBEZEN_METRICS_DEMO"
"""Set to 1 by `up --demo`: the API then says on the page that its traffic is simulated."""
STORAGE_DIR_VARIABLE: Final = ENVIRONMENT_PREFIX + "STORAGE_DIR"
SPOOL_DIR_VARIABLE: Final = ENVIRONMENT_PREFIX + "SPOOL__DIR"
REPORTS_DIR_VARIABLE: Final = ENVIRONMENT_PREFIX + "REPORTS__DIR"


def load(
    config: Path | str | None = None,
    *,
    redis_url: str | None = None,
    storage_dir: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> Settings:
    """The settings that hold here. `config` names the file; without it, the nearest one upwards from `start` (the
    working directory) is taken, and where there is none, defaults. Raises ConfigError."""
    path = Path(config) if config is not None else _find(start or Path.cwd())
    tree = _read(path) if path is not None else {}
    _convert(tree, str(path), strict=True)  # so that an error names the file, not a variable applied on top of it
    environ = os.environ if environ is None else environ
    settings = _apply_environment(tree, environ)
    given = {variable.upper() for variable in environ}
    elsewhere = storage_dir is not None or STORAGE_DIR_VARIABLE in given
    folder = _based(settings.storage_dir if storage_dir is None else Path(storage_dir), path, elsewhere, "storage_dir")
    spool = settings.spool
    if spool.dir is not None:
        spool = msgspec.structs.replace(spool, dir=_based(spool.dir, path, SPOOL_DIR_VARIABLE in given, "spool.dir"))
    reports = settings.reports
    if reports.dir is not None:
        elsewhere = REPORTS_DIR_VARIABLE in given
        reports = msgspec.structs.replace(reports, dir=_based(reports.dir, path, elsewhere, "reports.dir"))
    redis = msgspec.structs.replace(settings.redis, url=redis_url or settings.redis.url)
    settings = msgspec.structs.replace(
        _with_tls(settings, path, given), storage_dir=folder, spool=spool, reports=reports, redis=redis, source=path
    )
    _check(settings)
    return settings


def _with_tls(settings: Settings, file: Path | None, given: Collection[str]) -> Settings:
    """Paths of certificates and keys made whole. `given`: the variables of the environment."""
    for section in ("dashboard", "gateway"):
        served = getattr(settings, section)
        for name in ("tls_certificate", "tls_key"):
            if (path := getattr(served, name)) is not None:
                elsewhere = f"{ENVIRONMENT_PREFIX}{section}__{name}".upper() in given
                whole = _based(path, file, elsewhere, f"{section}.{name}")
                served = msgspec.structs.replace(served, **{name: whole})
        settings = msgspec.structs.replace(settings, **{section: served})
    return settings


def _based(folder: Path, file: Path | None, elsewhere: bool, key: str) -> Path:
    """A relative folder counts from the file, the default too: from wherever below it one starts, it is one store.
    `elsewhere`: it was not the file that named it."""
    base = file.resolve().parent if file is not None and not elsewhere else Path.cwd()
    try:
        return base / folder.expanduser()
    except RuntimeError:
        raise ConfigError(f"vibezen.metrics.{key} = {str(folder)!r}: no such user") from None


def _find(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    return None


def _read(path: Path) -> dict[str, Any]:
    """The mapping under `vibezen: metrics:`. Other parts of `vibezen:` belong to other products."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path}: {where}not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if document is None:
        return {}
    outer = document.get("vibezen") if isinstance(document, dict) else None
    if not isinstance(outer, dict) or not isinstance(outer.get("metrics", {}), dict | None):
        raise ConfigError(f"{path}: expected a mapping `vibezen:` with a mapping `metrics:` in it")
    return outer.get("metrics") or {}


def _apply_environment(tree: dict[str, Any], environ: Mapping[str, str]) -> Settings:
    settings = _convert(tree, "settings", strict=True)
    for variable in sorted(v for v in environ if v.startswith(ENVIRONMENT_PREFIX)):
        path = variable[len(ENVIRONMENT_PREFIX) :].lower().split("__")
        if path[-1] == "source":
            raise ConfigError(f"{variable}: unknown setting")
        tree = _with(tree, path, _environment_value(variable, environ[variable]))
        settings = _convert(tree, variable, strict=False)
    return settings


def _environment_value(variable: str, text: str) -> Any:
    """Lists and mappings are written as YAML, everything else as it is; an empty variable is null."""
    if not text.startswith(("[", "{")):
        return text or None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{variable}: not valid YAML: {getattr(error, 'problem', None) or error}") from None


def _with(tree: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A copy of `tree` in which `path` has `value`."""
    inner = tree.get(path[0])
    below = value if len(path) == 1 else _with(inner if isinstance(inner, dict) else {}, path[1:], value)
    return {**tree, path[0]: below}


def _convert(tree: dict[str, Any], where: str, *, strict: bool) -> Settings:
    if "source" in tree:
        raise ConfigError(f"{where}: vibezen.metrics.source: unknown key")
    try:
        return msgspec.convert(tree, Settings, strict=strict, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(str(error), tree, strict=strict)}") from None


def _to_path(kind: type, value: Any) -> Path:
    if not isinstance(value, str):
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")
    return Path(value)


def _explain(message: str, tree: Mapping[str, Any], *, strict: bool) -> str:
    """msgspec's words, with our name of the key and the value that stands there."""
    if " - at `key` in `$" in message:
        return "vibezen.metrics: every key must be text; put quotes around it"
    reason, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if "[...]" in path:  # msgspec does not say which key of a mapping it means
        section, _, rest = path.partition("[...]")
        path = f"{section}.{_culprit(section, tree[section], strict=strict)}{rest}"
    if unknown := re.search(r"unknown field `(.+)`", reason):
        key = ".".join(filter(None, ("vibezen.metrics", path, unknown[1])))
        return f"{key}: unknown key"
    value: Any = tree
    for part in filter(None, re.split(r"\.|\[|\]", path)):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
    key = ".".join(filter(None, ("vibezen.metrics", path)))
    secret = path.endswith(("url", "auth.token"))
    shown = "***" if secret else repr(value) if not isinstance(value, Mapping | list) else "its value"
    return f"{key} = {shown}: {reason[:1].lower()}{reason[1:]}"


def _culprit(section: str, entries: Mapping[str, Any], *, strict: bool) -> str:
    """The first entry of a mapping (`sampling`, `metrics`) that is wrong by itself."""
    for name, value in entries.items():
        try:
            msgspec.convert({section: {name: value}}, Settings, strict=strict, dec_hook=_to_path)
        except msgspec.ValidationError:
            return name
    return "…"


def _check(settings: Settings) -> None:
    """What types cannot say."""
    where = settings.source or "settings"
    for label in settings.aggregation.labels:
        if not is_name(label):
            raise ConfigError(f"{where}: vibezen.metrics.aggregation.labels = {label!r}: expected a metadata key")
    for name in (*settings.sampling, *settings.metrics):
        if not is_name(name):
            raise ConfigError(f"{where}: vibezen.metrics: {name!r} is not a metric name")
    _check_access(settings, str(where))
    if settings.buffer_max_events < max(settings.buffer_size, MAX_BATCH_EVENTS):
        raise ConfigError(
            f"{where}: vibezen.metrics.buffer_max_events = {settings.buffer_max_events}: expected at least "
            f"buffer_size and {MAX_BATCH_EVENTS}, the largest batch"
        )
    if settings.external.url is not None:
        _check_external(settings.external.url, settings.storage_dir, str(where))
    widths = settings.aggregation.widths
    for finer, coarser in pairwise(widths):
        if coarser.seconds % finer.seconds or coarser.keep_seconds < finer.keep_seconds:
            raise ConfigError(
                f"{where}: vibezen.metrics.aggregation.widths = {coarser.seconds}: expected a multiple of "
                f"{finer.seconds}, kept at least as long"
            )
    if not widths:
        raise ConfigError(f"{where}: vibezen.metrics.aggregation.widths: expected at least one width")


OUR_PATHS: Final = frozenset(
    {
        "api",
        "assets",
        "docs",
        "docs.css",
        "healthz",
        "login",
        "login.css",
        "login.js",
        "logout",
        "metrics",
        "readyz",
        "ws",
    }
)
"""What a root path may not begin with: behind a proxy that strips it, our own paths would look like it."""
_ROOT_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._~-]*)*\Z")
_HOST: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\Z")


def _check_access(settings: Settings, where: str) -> None:
    for key, origins in (("gateway", settings.gateway.origins), ("auth", settings.auth.origins)):
        for origin in origins:
            if not is_origin(origin):
                raise ConfigError(f"{where}: vibezen.metrics.{key}.origins = {origin!r}: expected {ORIGIN_RULE}")
    for host in settings.auth.hosts:
        if not _HOST.match(host):
            rule = "a name in small letters without port, for example 'metrics.example.org'"
            raise ConfigError(f"{where}: vibezen.metrics.auth.hosts = {host!r}: expected {rule}")
    root = settings.dashboard.root_path or ""
    if not _ROOT_PATH.match(root) or OUR_PATHS.intersection(root.split("/")[1:2]):
        rule = "a path such as '/metrics-ui', without '/' at its end, that begins with none of our own names"
        raise ConfigError(f"{where}: vibezen.metrics.dashboard.root_path = {root!r}: expected {rule}")
    for section, served in (("dashboard", settings.dashboard), ("gateway", settings.gateway)):
        for proxy in served.trusted_proxies:
            if not _is_network(proxy):
                rule = "an address or a network, for example '127.0.0.1' or '10.0.0.0/8'"
                raise ConfigError(f"{where}: vibezen.metrics.{section}.trusted_proxies = {proxy!r}: expected {rule}")
        if (served.tls_certificate is None) is not (served.tls_key is None):
            missing = "tls_key" if served.tls_key is None else "tls_certificate"
            raise ConfigError(
                f"{where}: vibezen.metrics.{section}.{missing}: expected a file, since the other is given"
            )


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def _check_external(url: str, storage_dir: Path, where: str) -> None:
    from vibezen.metrics.external import URL_RULE, is_url, local_path

    if not is_url(url):  # which is not shown: it may hold credentials
        raise ConfigError(f"{where}: vibezen.metrics.external.url: expected {URL_RULE}")
    folder = local_path(url)
    if folder is not None and folder.resolve().is_relative_to(storage_dir.resolve()):
        raise ConfigError(f"{where}: vibezen.metrics.external.url: expected a folder outside of storage_dir")


def public_view(settings: Settings) -> dict[str, Any]:
    """The settings as plain data for people: no secret in it."""
    from vibezen.metrics.connection import redacted

    view: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    if settings.redis.url:
        view["redis"]["url"] = redacted(settings.redis.url)
    if settings.auth.token:
        view["auth"]["token"] = "***"  # noqa: S105 - what is shown in its place
    return view
