"""HTTPS and WSS by certificate files, and files that are replaced or wrong."""

import contextlib
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.gateways import lines
from tests.support.processes import StartRole
from tests.support.serving import StartDashboard
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.errors import ConfigError
from vibezen.metrics.serving.tls import Tls
from vibezen.metrics.settings import Auth, Dashboard, Required

TOKEN = "s3cret-token-of-tests"


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for this machine, and its key."""
    made, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", made], check=True, capture_output=True, timeout=DEADLINE)
    return made, key


def shown_by(context: ssl.SSLContext) -> bytes | None:
    """The certificate that a client is shown, in a handshake from memory to memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for one in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            one.do_handshake()
    return client.getpeercert(binary_form=True)


def test_page_api_and_socket_by_tls_and_a_new_certificate_without_restart(
    redis_url: str, tmp_path: Path, start_dashboard: StartDashboard, wait_until: WaitUntil
) -> None:
    made, key = certificate(tmp_path, "one")
    served = start_dashboard(
        redis_url,
        dashboard=Dashboard(tls_certificate=made, tls_key=key),
        auth=Auth(token=TOKEN, required=Required.ALWAYS),
    )
    trusted = ssl.create_default_context(cafile=str(made))
    base = f"https://127.0.0.1:{served.port}"
    with httpx.Client(base_url=base, verify=trusted, timeout=DEADLINE) as client:
        answer = client.post("/login", content=TOKEN, headers={"origin": base})
        cookie = answer.headers["set-cookie"]
        assert "Secure" in cookie
        assert "strict-transport-security" not in answer.headers  # it would hold for every port of this machine
        session = {"cookie": cookie.partition(";")[0], "origin": base}
        assert client.get("/api/metrics/realtime", headers=session).status_code == 200
    with connect(f"wss://127.0.0.1:{served.port}/ws", ssl=trusted, additional_headers=session) as socket:
        assert "snapshot" in str(socket.recv(timeout=DEADLINE))

    newer, newer_key = certificate(tmp_path, "two")
    newer_key.replace(key)  # for a moment the two do not fit
    newer.replace(made)

    def renewed() -> bool:
        try:
            with httpx.Client(verify=ssl.create_default_context(cafile=str(made)), timeout=DEADLINE) as client:
                return client.get(f"{base}/healthz").status_code == 200
        except httpx.ConnectError:
            return False

    wait_until(renewed)


def test_certificate_that_cannot_be_used_is_one_line_that_names_it(tmp_path: Path) -> None:
    made, key = certificate(tmp_path, "one")
    _, other_key = certificate(tmp_path, "two")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for certificate_file, key_file, told in (
        (made, tmp_path / "missing.key", r"dashboard\.tls_key = .*missing\.key': no such file"),
        (made, other_key, r"dashboard\.tls_certificate = .*belongs to another certificate"),
        (empty, key, r"dashboard\.tls_certificate = .*expected a certificate in PEM"),
    ):
        with pytest.raises(ConfigError, match=told):
            Tls(certificate_file, key_file, "dashboard")


def test_files_that_do_not_fit_change_nothing_while_we_serve(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, key = certificate(tmp_path, "one")
    tls = Tls(made, key, "gateway")
    before = shown_by(tls.context)
    certificate(tmp_path, "two")[0].replace(made)  # whose key is another one
    tls.refresh()
    tls.refresh()
    assert shown_by(tls.context) == before
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # once, not every second
    assert "the certificate served so far stays" in caplog.text


def test_gateway_serves_by_tls_and_refuses_a_wrong_file_with_exit_code_2(
    redis_url: str, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil, free_tcp_port: int
) -> None:
    made, key = certificate(tmp_path, "one")
    command = ("gateway", "--redis-url", redis_url, "--storage-dir", str(tmp_path), "--port", str(free_tcp_port))
    paths = {"VIBEZEN_METRICS__GATEWAY__TLS_CERTIFICATE": str(made), "VIBEZEN_METRICS__GATEWAY__TLS_KEY": str(key)}
    process = start_role(*command, **paths)
    trusted = ssl.create_default_context(cafile=str(made))
    with httpx.Client(base_url=f"https://127.0.0.1:{free_tcp_port}", verify=trusted, timeout=DEADLINE) as client:
        wait_until(lambda: f"Gateway: https://localhost:{free_tcp_port}" in process.said)
        assert client.post("/api/events", content=lines(1)).status_code == 200
    assert process.stop() == 0

    key.write_text("no key")
    refused = start_role(*command, **paths)
    assert refused.wait() == 2
    assert refused.said.count("\n") == 1
    assert "vibezen.metrics.gateway.tls_certificate" in refused.said
