"""The public face of VIBEZEN Metrics; names load on first use (PEP 562)."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vibezen.metrics.api.dashboard import MetricsDashboard as MetricsDashboard
    from vibezen.metrics.api.web import WebDashboard as WebDashboard
    from vibezen.metrics.catalogue import MetricType as MetricType
    from vibezen.metrics.errors import ConfigError as ConfigError
    from vibezen.metrics.errors import InvalidEvent as InvalidEvent
    from vibezen.metrics.errors import MetricsError as MetricsError
    from vibezen.metrics.producers.collector import MetricsCollector as MetricsCollector
    from vibezen.metrics.producers.middleware import MetricsMiddleware as MetricsMiddleware
    from vibezen.metrics.reporter import MetricsReporter as MetricsReporter
    from vibezen.metrics.storage import MetricsStorage as MetricsStorage

_HOME = {
    "ConfigError": "vibezen.metrics.errors",
    "InvalidEvent": "vibezen.metrics.errors",
    "MetricType": "vibezen.metrics.catalogue",
    "MetricsCollector": "vibezen.metrics.producers.collector",
    "MetricsDashboard": "vibezen.metrics.api.dashboard",
    "MetricsError": "vibezen.metrics.errors",
    "MetricsMiddleware": "vibezen.metrics.producers.middleware",
    "MetricsReporter": "vibezen.metrics.reporter",
    "MetricsStorage": "vibezen.metrics.storage",
    "WebDashboard": "vibezen.metrics.api.web",
}

__all__ = [
    "ConfigError",
    "InvalidEvent",
    "MetricType",
    "MetricsCollector",
    "MetricsDashboard",
    "MetricsError",
    "MetricsMiddleware",
    "MetricsReporter",
    "MetricsStorage",
    "WebDashboard",
]


if not TYPE_CHECKING:  # a visible __getattr__ would make every misspelt name valid for type checkers

    def __getattr__(name: str) -> object:
        try:
            home = _HOME[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
