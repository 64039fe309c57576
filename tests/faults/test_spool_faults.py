"""Every file operation of an application's spool fails once, by kill, full disk and broken disk: what it was told to be
safe arrives, nothing arrives twice, and nothing is left lying about."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.server

SCRIPT = Path(__file__).with_name("spool_faults.py")
EACH = 5
ROUNDS = 2


def trials(redis_url: str, folder: Path, fault: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(SCRIPT), redis_url, str(folder), fault]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("fault", ["KILL", "ENOSPC", "EIO"])
def test_what_was_safe_arrives_once_whatever_file_operation_fails(redis_url: str, tmp_path: Path, fault: str) -> None:
    done = trials(redis_url, tmp_path, fault)
    for told in done:
        safe = {value for number in told["safe"] for value in range(number * EACH, (number + 1) * EACH)}
        assert safe <= set(told["values"]), told
        assert len(told["values"]) == len(set(told["values"])), told
        assert told["left"] == [], told
        if fault != "KILL":
            assert told["values"] == list(range(ROUNDS * EACH)), f"a fault that passes costs nothing: {told}"
    calls = Counter(told["call"] for told in done)
    assert calls["write"] >= ROUNDS
    assert {"fsync", "rename", "mkdir", "unlink", "open"} <= calls.keys()
