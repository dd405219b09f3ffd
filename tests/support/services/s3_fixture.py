"""A real S3 over HTTP (moto's server) for every test that needs one; it counts what it is sent and fails on demand.

conftest.py imports it: any test takes ``s3_bucket`` (a new bucket's name; the environment of this process and its
children points to the server) or ``s3_server`` (requests, faults).
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"
ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True)
class SeenRequest:
    method: str
    path: str  # with the query
    size_bytes: int  # of the body


@dataclass
class Fault:
    """Answers requests whose ``METHOD /path?query`` matches, ``times`` often; None = always."""

    pattern: str
    status: int
    code: str = ""
    message: str = "as the test wants it"
    times: int | None = None
    more: str = ""  # XML beside code and message
    headers: tuple[tuple[str, str], ...] = ()
    truncate: int | None = None  # bytes of moto's own answer that go out before the connection ends
    after: bool = False  # moto does what was asked, and the answer is lost
    delay: threading.Event | None = None  # moto's own answer comes when it is set


@dataclass
class S3Server:
    """moto behind a layer that makes conditional writes atomic, as S3's are (moto looks and writes in two steps)."""

    endpoint_url: str = ""
    seen: list[SeenRequest] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    _conditional: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }  # fmt: skip

    def sent_bytes(self, below: str = "/") -> int:
        """Bytes of objects that clients uploaded to addresses with ``below`` in them."""
        return sum(request.size_bytes for request in self.seen if request.method == "PUT" and below in request.path)

    def around(self, moto: Application) -> Application:
        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            path = environ["PATH_INFO"] + (f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else "")
            size = environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH") or environ.get("CONTENT_LENGTH") or "0"
            self.seen.append(SeenRequest(environ["REQUEST_METHOD"], path, int(size)))
            fault = self._fault(f"{environ['REQUEST_METHOD']} {path}")
            if fault is not None and fault.delay is not None:
                fault.delay.wait(60)
            elif fault is not None and fault.truncate is None:
                if fault.after:
                    with self._conditional:
                        list(moto(environ, lambda *_: None))
                else:
                    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                body = ERROR.format(code=fault.code, message=fault.message, more=fault.more).encode()
                body = b"" if environ["REQUEST_METHOD"] == "HEAD" else body
                start_response(f"{fault.status} x", [("Content-Type", "application/xml"), *fault.headers])
                return [body]
            if "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ:
                with self._conditional:
                    return [b"".join(moto(environ, start_response))]
            whole = moto(environ, start_response)
            return whole if fault is None or fault.truncate is None else _beginning(whole, fault.truncate)

        return answer

    def _fault(self, request: str) -> Fault | None:
        for fault in self.faults:
            if re.search(fault.pattern, request) and fault.times != 0:
                fault.times = None if fault.times is None else fault.times - 1
                return fault
        return None


def _beginning(whole: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The server notices that less came than it announced and closes the connection."""
    yield b"".join(whole)[:size]


@pytest.fixture(scope="session")
def running_s3() -> Iterator[S3Server]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class Silent(MotoRequestHandler):
        def log(self, *_: Any) -> None:
            """Hundreds of lines would hide what a failed test says."""

    server = S3Server()
    application = server.around(DomainDispatcherApplication(create_backend_app))
    listening = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Silent)
    server.endpoint_url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield server
    listening.shutdown()
    thread.join()


@pytest.fixture
def s3_server(running_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """One server for the session; nothing seen yet, no faults, and the environment points to it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in running_s3.environment.items():
        monkeypatch.setenv(name, value)
    running_s3.seen.clear()
    running_s3.faults.clear()
    yield running_s3
    running_s3.faults.clear()


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """Name of a new, empty bucket."""
    import boto3

    name = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    s3_server.seen.clear()
    return name
