"""`vibezen.yaml`: the mission's file as it stands, what overrides what, and errors that name file, key and value."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vibezen.metrics.catalogue import Kind
from vibezen.metrics.config import load, public_view
from vibezen.metrics.errors import ConfigError
from vibezen.metrics.settings import Durability, Settings

MISSION = """
vibezen:
  metrics:
    enabled: true
    storage_dir: "./metrics_data"
    buffer_size: 100
    flush_interval_seconds: 60
    retention_days: 30

    dashboard:
      enabled: true
      host: "0.0.0.0"
      port: 8080

    collection:
      system_metrics: true
      learning_metrics: true
      practice_metrics: true

    alerts:
      error_rate_threshold: 0.05
      response_time_threshold_ms: 1000
      cache_hit_rate_threshold: 0.7
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Put this text below `vibezen: metrics:` into a file of its own folder, and answer its path."""

    def write(inner: str) -> Path:
        path = tmp_path / "project" / "vibezen.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"vibezen: {{metrics: {inner}}}\n")
        return path

    return write


def refusal(path: Path | None, environ: dict[str, str] | None = None) -> str:
    """The one line that loading ends with, without the file's name."""
    with pytest.raises(ConfigError) as refused:
        load(path, environ=environ or {})
    line = str(refused.value)
    assert "\n" not in line
    assert refused.value.exit_code == 2
    return line.removeprefix(f"{path}: ")


def test_missions_file_is_valid_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "vibezen.yaml"
    path.write_text(MISSION)
    settings = load(path, environ={})
    assert settings.flush_interval_seconds == 60
    assert (settings.dashboard.host, settings.dashboard.port) == ("0.0.0.0", 8080)
    assert settings.alerts.response_time_threshold_ms == 1000
    assert settings.storage_dir == tmp_path / "metrics_data"


def test_without_a_file_defaults_hold(tmp_path: Path) -> None:
    settings = load(environ={})
    assert settings.source is None
    assert settings.storage_dir == tmp_path / "metrics_data"
    assert (settings.dashboard.host, settings.flush_interval_seconds) == ("127.0.0.1", 1.0)
    assert settings.redis.url is None


@pytest.mark.parametrize("text", ["", "vibezen: {metrics: }", "vibezen: {other_product: {a: 1}}"])
def test_file_that_says_nothing_of_us_means_defaults(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vibezen.yaml"
    path.write_text(text)
    assert load(path, environ={}) == load(path, environ={}, storage_dir=tmp_path / "metrics_data")


def test_nearest_file_upwards_is_found(write: Write) -> None:
    path = write("{buffer_size: 7}")
    below = path.parent / "a" / "b"
    below.mkdir(parents=True)
    settings = load(start=below, environ={})
    assert settings.buffer_size == 7
    assert settings.source == path


def test_arguments_win_over_environment_over_file(write: Write, tmp_path: Path) -> None:
    path = write("{storage_dir: of-file, redis: {url: 'redis://file'}}")
    environ = {"VIBEZEN_METRICS__STORAGE_DIR": "of-environment", "VIBEZEN_METRICS__REDIS__URL": "redis://environment"}
    by_environment = load(path, environ=environ)
    by_argument = load(path, environ=environ, storage_dir="of-argument", redis_url="redis://argument")
    assert (by_environment.storage_dir.name, by_environment.redis.url) == ("of-environment", "redis://environment")
    assert (by_argument.storage_dir.name, by_argument.redis.url) == ("of-argument", "redis://argument")


def test_relative_folder_counts_from_the_file_that_names_it(write: Write, tmp_path: Path) -> None:
    path = write("{storage_dir: ./data}")
    here = {"VIBEZEN_METRICS__STORAGE_DIR": "./data"}
    assert load(path, environ={}).storage_dir == path.parent / "data"
    assert load(write("{buffer_size: 7}"), environ={}).storage_dir == path.parent / "metrics_data"
    assert load(path, environ=here).storage_dir == tmp_path / "data"
    assert load(path, environ={}, storage_dir="./data").storage_dir == tmp_path / "data"


def test_spool_lies_in_the_storage_folder_unless_it_is_named(write: Write, tmp_path: Path) -> None:
    path = write("{spool: {dir: ./kept}}")
    here = {"VIBEZEN_METRICS__SPOOL__DIR": "./kept"}
    elsewhere = {"VIBEZEN_METRICS__STORAGE_DIR": "data"}
    assert load(path, environ={}).spool_dir == load(path, environ=elsewhere).spool_dir == path.parent / "kept"
    assert load(path, environ=here).spool_dir == tmp_path / "kept"
    assert load(write("{buffer_size: 7}"), environ={}).spool_dir == path.parent / "metrics_data" / "spool"


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("DASHBOARD__PORT", "9090", lambda s: s.dashboard.port == 9090),
        ("DASHBOARD__ENABLED", "false", lambda s: s.dashboard.enabled is False),
        ("FLUSH_INTERVAL_SECONDS", "0.05", lambda s: s.flush_interval_seconds == 0.05),
        ("AGGREGATION__LABELS", "[provider, team]", lambda s: s.aggregation.labels == ("provider", "team")),
        ("SAMPLING__TOKENS", "0.1", lambda s: s.sampling == {"tokens": 0.1}),
        ("METRICS", "{queue: {kind: gauge}}", lambda s: s.metrics["queue"].kind is Kind.GAUGE),
        ("REDIS__URL", "", lambda s: s.redis.url is None),
        ("DURABILITY", "replica", lambda s: s.durability is Durability.REPLICA and s.replicas_asked == 1),
        ("REPLICAS", "2", lambda s: s.replicas == 2 and s.replicas_asked == 0),
        ("SPOOL__MAX_BYTES", "2000000", lambda s: s.spool.max_bytes == 2_000_000),
    ],
)
def test_environment_overrides_by_path(variable: str, text: str, value: Callable[[Settings], bool]) -> None:
    assert value(load(environ={f"VIBEZEN_METRICS__{variable}": text, "VIBEZEN_METRICS_DEMO": "1"}))


@pytest.mark.parametrize(
    ("inner", "line"),
    [
        ("{buffersize: 1}", "vibezen.metrics.buffersize: unknown key"),
        ("{dashboard: {prot: 1}}", "vibezen.metrics.dashboard.prot: unknown key"),
        ("{source: /etc}", "vibezen.metrics.source: unknown key"),
        ("{dashboard: 5}", "vibezen.metrics.dashboard = 5: expected `object`, got `int`"),
        ("{dashboard: {port: '80'}}", "vibezen.metrics.dashboard.port = '80': expected `int`, got `str`"),
        ("{dashboard: {port: 99999}}", "vibezen.metrics.dashboard.port = 99999: expected `int` <= 65535"),
        ("{flush_interval_seconds: .inf}", "vibezen.metrics.flush_interval_seconds = inf: expected `float` <= "),
        ("{flush_interval_seconds: .nan}", "vibezen.metrics.flush_interval_seconds = nan: expected `float` > 0.0"),
        ("{alerts: {error_rate_threshold: 5}}", "vibezen.metrics.alerts.error_rate_threshold = 5: expected `float` <="),
        ("{sampling: {cost: 1, tokens: 0}}", "vibezen.metrics.sampling.tokens = 0: expected `float` >= 1e-09"),
        ("{metrics: {a: {kind: sum}}}", "vibezen.metrics.metrics.a.kind = 'sum': invalid enum value 'sum'"),
        ("{aggregation: {widths: [{seconds: 10}]}}", "vibezen.metrics.aggregation.widths[0] = its value: object miss"),
        ("{aggregation: {widths: []}}", "vibezen.metrics.aggregation.widths: expected at least one width"),
        (
            "{aggregation: {widths: [{seconds: 10, keep_seconds: 60}, {seconds: 25, keep_seconds: 60}]}}",
            "vibezen.metrics.aggregation.widths = 25: expected a multiple of 10, kept at least as long",
        ),
        ("{aggregation: {labels: [Provider]}}", "vibezen.metrics.aggregation.labels = 'Provider': expected a metadata"),
        ("{sampling: {Tokens: 1}}", "vibezen.metrics: 'Tokens' is not a metric name"),
        ("{buffer_max_events: 5}", "vibezen.metrics.buffer_max_events = 5: expected at least buffer_size and 1000"),
        ("{redis: {prefix: 'a b'}}", "vibezen.metrics.redis.prefix = 'a b': expected `str` matching regex"),
        ("{storage_dir: 5}", "vibezen.metrics.storage_dir = 5: expected `str`, got `int`"),
        ("{storage_dir: ~nobody-here/x}", "vibezen.metrics.storage_dir = '~nobody-here/x': no such user"),
        ("{1: 2}", "vibezen.metrics: every key must be text; put quotes around it"),
    ],
)
def test_wrong_setting_is_one_line_naming_file_key_value_and_expectation(write: Write, inner: str, line: str) -> None:
    assert refusal(write(inner)).startswith(line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1", "line 1, column 6: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: !!python/object:os.system x", "line 1, column 4: not valid YAML: could not determine a constructor"),
        ("metrics: {}", "expected a mapping `vibezen:` with a mapping `metrics:` in it"),
        ("- vibezen", "expected a mapping `vibezen:` with a mapping `metrics:` in it"),
    ],
)
def test_file_that_is_not_ours_is_refused_with_its_place(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "vibezen.yaml"
    path.write_text(text)
    assert refusal(path).startswith(line)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == "cannot be read: No such file or directory"
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    assert refusal(tmp_path / "binary.yaml") == "not UTF-8 text"


@pytest.mark.parametrize(
    ("variable", "text", "line"),
    [
        ("NOPE", "1", "VIBEZEN_METRICS__NOPE: vibezen.metrics.nope: unknown key"),
        ("SOURCE", "x", "VIBEZEN_METRICS__SOURCE: unknown setting"),
        ("DASHBOARD__PORT", "abc", "VIBEZEN_METRICS__DASHBOARD__PORT: vibezen.metrics.dashboard.port = 'abc': exp"),
        ("AGGREGATION__LABELS", "[a", "VIBEZEN_METRICS__AGGREGATION__LABELS: not valid YAML: expected ',' or ']'"),
    ],
)
def test_wrong_variable_is_one_line_naming_it(variable: str, text: str, line: str) -> None:
    assert refusal(None, {f"VIBEZEN_METRICS__{variable}": text}).startswith(line)


def test_address_with_password_is_never_shown(write: Write) -> None:
    assert "secret" not in refusal(write("{redis: {url: ['redis://:secret@host']}}"))
    view = public_view(load(environ={"VIBEZEN_METRICS__REDIS__URL": "redis://me:secret@host:1"}))
    assert view["redis"]["url"] == "redis://me:***@host:1"
    assert isinstance(view["storage_dir"], str)


@pytest.mark.parametrize("url", ["/mnt/archive", "s3://key:secret@bucket/x", "file:///", "file://store/x"])
def test_external_storage_is_an_address_without_credentials_which_are_not_shown(write: Write, url: str) -> None:
    line = refusal(write(f"{{external: {{url: '{url}'}}}}"))
    assert line.startswith("vibezen.metrics.external.url: expected file:///folder or s3://bucket/folder")
    assert "secret" not in line


def test_external_storage_does_not_lie_in_the_store(tmp_path: Path, write: Write) -> None:
    url = tmp_path.as_uri() + "/out"
    inside = write(f"{{storage_dir: {tmp_path}, external: {{url: '{url}'}}}}")
    assert refusal(inside) == "vibezen.metrics.external.url: expected a folder outside of storage_dir"
    assert load(write(f"{{storage_dir: {tmp_path}/store, external: {{url: '{url}'}}}}"), environ={}).external.url == url


def test_first_token_is_never_shown(write: Write) -> None:
    settings = load(environ={"VIBEZEN_METRICS__AUTH__TOKEN": "s3cret-token-of-tests"})
    assert settings.auth.token == "s3cret-token-of-tests"
    assert public_view(settings)["auth"]["token"] == "***"
    for bad in ("short-s3cret", "s3cret with a space in it", ["s3cret-in-a-list-of-one"]):
        assert "s3cret" not in refusal(write(f"{{auth: {{token: {bad!r}}}}}"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{auth: {hosts: ['Metrics.example.org']}}", "auth.hosts"),
        ("{auth: {hosts: ['metrics.example.org:443']}}", "auth.hosts"),
        ("{auth: {origins: ['app.example']}}", "auth.origins"),
        ("{auth: {required: never}}", "auth.required"),
        ("{dashboard: {root_path: 'ui'}}", "dashboard.root_path"),
        ("{dashboard: {root_path: '/ui/'}}", "dashboard.root_path"),
        ("{dashboard: {root_path: '/..'}}", "dashboard.root_path"),
        ("{dashboard: {root_path: '/api/x'}}", "dashboard.root_path"),
        ("{dashboard: {trusted_proxies: ['proxy.example.org']}}", "dashboard.trusted_proxies"),
        ("{gateway: {trusted_proxies: ['10.0.0.1/8']}}", "gateway.trusted_proxies"),
        ("{dashboard: {tls_certificate: cert.pem}}", "dashboard.tls_key"),
        ("{gateway: {tls_key: key.pem}}", "gateway.tls_certificate"),
        ("{live: {max_clients_per_address: 0}}", "live.max_clients_per_address"),
    ],
)
def test_impossible_access_is_refused(write: Write, text: str, key: str) -> None:
    assert f"vibezen.metrics.{key}" in refusal(write(text))
