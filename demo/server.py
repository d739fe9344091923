"""A Tuneport server for the demo: started as a user would start it, on a free port, and stopped at the end."""

import contextlib
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

START_TIMEOUT_SECONDS = 300
STOP_TIMEOUT_SECONDS = 45  # the server gives running requests 30 s


@dataclass(frozen=True)
class Server:
    """A running server; `base_url` ends in `/v1`, `api_key` is an admin key, `certificate` is for https."""

    base_url: str
    api_key: str
    log: Path
    process: subprocess.Popen[bytes]
    certificate: Path | None = None

    def get(self, path: str) -> httpx.Response:
        """GET a path of the server, for example `/ready`."""
        trusted = ssl.create_default_context(cafile=self.certificate) if self.certificate else False
        url = self.base_url.removesuffix("/v1") + path
        return httpx.get(url, headers={"Authorization": f"Bearer {self.api_key}"}, verify=trusted)

    def wait(self, path: str) -> None:
        """Wait until `path` answers 200.

        Raises:
            RuntimeError: the server ended, or took too long; the message ends with its log.
        """
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(httpx.TransportError):
                if self.get(path).status_code == 200:
                    return
            time.sleep(0.2)
        raise RuntimeError(f"the server did not start; its log {self.log} ends:\n{self.log.read_text()[-2000:]}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def serve(model: Path, data_dir: Path, *flags: str, **settings: str) -> Iterator[Server]:
    """Run a server during the block; it listens at once, the engine is ready later (`server.wait("/ready")`).

    Args:
        settings: named as their variables without the prefix: `dtype="float32"`.
    """
    port = free_port()
    key = f"sk-demo-{secrets.token_urlsafe(24)}"
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "server.log"
    environment = {f"TUNEPORT_{name.upper()}": value for name, value in {**settings, "admin_key": key}.items()}
    certificate = settings.get("tls_certificate")
    scheme = "https" if certificate else "http"
    command = [sys.executable, "-m", "server.cli", "serve", "--model", str(model), "--port", str(port)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), *flags],
            stdout=stream,
            stderr=stream,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        server = Server(
            f"{scheme}://127.0.0.1:{port}/v1", key, log, process, Path(certificate) if certificate else None
        )
        server.wait("/health")
        yield server
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the server as its operator would; if it does not end, kill its whole group and raise RuntimeError."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise RuntimeError(
            f"the server did not end within {STOP_TIMEOUT_SECONDS} s of SIGTERM and was killed"
        ) from None
