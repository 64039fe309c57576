"""What proxies say of the client, and who is believed."""

from typing import Any

import pytest

from vibezen.metrics.serving.forwarded import Proxies


def resolved(proxies: Proxies, *headers: tuple[str, str], peer: str = "10.0.0.1", path: str = "/ws") -> dict[str, Any]:
    scope: dict[str, Any] = {
        "type": "websocket",
        "scheme": "ws",
        "client": (peer, 5),
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "headers": [(b"host", b"inner:8080"), *((name.encode(), value.encode()) for name, value in headers)],
    }
    proxies.resolve(scope)
    return scope


PROXIES = Proxies(["10.0.0.0/8", "fd00::1"], "/ui")


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),  # the client says the first one itself
        ("203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::5]:4711", "2001:db8::5"),
        ("2001:db8::5", "2001:db8::5"),
        ("203.0.113.9, unknown", "10.0.0.1"),
        ("10.1.1.1", "10.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_client_is_the_last_hop_that_is_no_proxy_of_ours(said: str, client: str) -> None:
    assert resolved(PROXIES, ("x-forwarded-for", said))["client"][0] == client


def test_scheme_and_host_come_from_the_proxy_next_to_us() -> None:
    scope = resolved(
        PROXIES,
        ("x-forwarded-proto", "http, https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-host", "metrics.example.org"),
    )
    assert scope["scheme"] == "wss"
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"metrics.example.org"]
    assert resolved(PROXIES, ("x-forwarded-proto", "gopher"))["scheme"] == "ws"


def test_nobody_else_is_believed() -> None:
    said = (("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "evil.example"))
    for proxies in (PROXIES, Proxies()):
        scope = resolved(proxies, *said, peer="203.0.113.9")
        assert (scope["client"][0], scope["scheme"], scope["headers"][0]) == (
            "203.0.113.9",
            "ws",
            (b"host", b"inner:8080"),
        )


@pytest.mark.parametrize(
    ("peer", "path", "root", "full"),
    [
        ("10.0.0.1", "/ws", "/ui", "/ui/ws"),  # the proxy strips
        ("10.0.0.1", "/ui/ws", "/ui", "/ui/ws"),  # it does not
        ("10.0.0.1", "/uix", "/ui", "/ui/uix"),
        ("203.0.113.9", "/ui/ws", "/ui", "/ui/ws"),
        ("203.0.113.9", "/ws", "", "/ws"),  # without a proxy
    ],
)
def test_root_path_stands_before_every_path_that_came_by_a_proxy(peer: str, path: str, root: str, full: str) -> None:
    scope = resolved(PROXIES, peer=peer, path=path)
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (root, full, full.encode())


def test_proxy_is_known_by_its_ipv4_address_on_a_socket_of_ipv6() -> None:
    scope = resolved(PROXIES, ("x-forwarded-for", "::ffff:203.0.113.9"), peer="::ffff:10.0.0.1")
    assert scope["client"][0] == "203.0.113.9"
    assert resolved(Proxies(), peer="::ffff:203.0.113.9")["client"][0] == "203.0.113.9"
