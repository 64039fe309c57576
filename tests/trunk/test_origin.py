"""What may be listed as the origin of a web page: exactly what browsers send, for nothing else would ever match."""

import pytest

from vibezen.metrics.config import load
from vibezen.metrics.errors import ConfigError
from vibezen.metrics.origin import is_origin


@pytest.mark.parametrize(
    "text",
    [
        *("http://localhost:3000", "https://app.example", "http://127.0.0.1:8080", "http://[::1]:3000"),
        *("https://app.example:80", "http://app.example:443", "http://a-b.c_d.example:65535", "http://localhost"),
    ],
)
def test_what_browsers_send_is_an_origin(text: str) -> None:
    assert is_origin(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "*",
            "null",
            "",
            "localhost:3000",
            "http://",
            "http://localhost:3000/",
            "http://localhost/app",
            "HTTP://a.example",
        ),
        *(
            "http://A.example",
            "http://a.example:80",
            "https://a.example:443",
            "http://a.example:0",
            "http://a.example:65536",
        ),
        *(
            "http://*.example",
            "ftp://a.example",
            "http://me@a.example",
            "http://a.example\n",
            "http://a..example",
            "file://",
        ),
    ],
)
def test_nothing_else_is_one(text: str) -> None:
    assert not is_origin(text)


def test_wrong_origin_is_told_with_its_setting_and_the_rule() -> None:
    wrong = {"VIBEZEN_METRICS__GATEWAY__ORIGINS": "['http://localhost:3000/']"}
    with pytest.raises(
        ConfigError, match=r"gateway\.origins = 'http://localhost:3000/': expected what a browser sends"
    ):
        load(environ=wrong)
    right = load(environ={"VIBEZEN_METRICS__GATEWAY__ORIGINS": "['http://localhost:3000']"})
    assert right.gateway.origins == ("http://localhost:3000",)
