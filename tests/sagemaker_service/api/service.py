"""The HTTP server: who asks, what is asked, and the answer or error in AWS's form."""

from __future__ import annotations

import inspect
import json
import logging
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from sagemaker_service.api import constraints, rules
from sagemaker_service.api.faults import Faults
from sagemaker_service.api.jobs import Job
from sagemaker_service.api.operations import Operations
from sagemaker_service.api.wire import Answer, ServiceError, answer, error_answer
from sagemaker_service.machines import clouds
from sagemaker_service.machines.hosts import PROGRAM, containable
from sagemaker_service.machines.runner import Plant, Runner

log = logging.getLogger(__name__)

CREDENTIALS_PATH = "/credentials"


@dataclass(frozen=True)
class Call:
    operation: str
    request: dict[str, Any]
    error: str | None  # the code it was refused with
    seconds: float  # time.monotonic() when it came


class Service:
    """Serves from its construction until stop(); `environment` is what a client needs."""

    def __init__(
        self,
        root: Path,
        *,
        aws: str | None = None,
        port: int = 0,
        moto_port: int = 0,
        region: str = "us-east-1",
        program: Sequence[str] = PROGRAM,
        isolation: Literal["auto", "namespace", "process"] = "auto",
        limit_scale: float = 1.0,
        start_seconds: float = 0.0,
        keep_folders: bool = False,
    ) -> None:
        """`aws`: URL of a running moto server; None = its own. `program`: of an image with its own entrypoint."""
        root.mkdir(parents=True, exist_ok=True)
        why_not = containable(root.resolve()) if isolation != "process" else "asked for plain processes"
        if why_not and isolation == "namespace":
            raise RuntimeError(f"no user namespaces here: {why_not}; use isolation='auto'")
        if why_not:
            log.info("hosts are plain processes over SM_ML_ROOT, without a true /opt/ml: %s", why_not)
        self.region, self.account = region, clouds.ACCOUNT
        self.faults = Faults()
        self.calls: list[Call] = []
        self.jobs: dict[str, Job] = {}
        self.images = {  # patterns of URIs that "exist"
            f"{clouds.ACCOUNT}.dkr.ecr.{region}.amazonaws.com/rightcall*:*",
            f"763104351884.dkr.ecr.{region}.amazonaws.com/pytorch-training:*",
        }
        self.clouds = clouds.Clouds(self.faults.network_is_away, moto_port) if aws is None else None
        self.aws_url = aws or (self.clouds.url if self.clouds else "")
        self.s3, self.logs, self.iam = (clouds.client(name, self.aws_url, region) for name in ("s3", "logs", "iam"))
        self.role = clouds.make_role(self.iam)
        self._server = _Server(("127.0.0.1", port), self)
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_port}"
        # As in a real container the credentials come from an address, not from variables.
        inside = {name: value for name, value in self.environment.items() if name.startswith("AWS_ENDPOINT_URL")}
        inside["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = self.endpoint_url + CREDENTIALS_PATH
        self.plant = Plant(
            root.resolve(), self.s3, self.logs, self.faults, contained=not why_not, program=program, environment=inside,
            region=region, limit_scale=limit_scale, start_seconds=start_seconds, keep_folders=keep_folders,
        )  # fmt: skip
        self._runners: dict[str, Runner] = {}
        self._lock = threading.RLock()
        self._operations = Operations(self)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="sagemaker")
        self._thread.start()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        return clouds.environment(self.aws_url, self.endpoint_url, self.region, self.role)

    def make_bucket(self, name: str) -> None:
        clouds.make_bucket(self.s3, name, self.region)

    def stop(self) -> None:
        """Ends every job's processes, then the servers."""
        self.plant.closed.set()
        for runner in list(self._runners.values()):
            runner.join()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self.clouds is not None:
            self.clouds.stop()

    def start(self, job: Job) -> None:
        with self._lock:
            rules.check_name(job.name, self.jobs)  # two requests at once
            rules.check_quota(job.request, self.jobs.values(), self.faults)
            self.jobs[job.name] = job
            self._runners[job.name] = Runner(job, self.plant)
            self._runners[job.name].start()

    def hosts(self, job: str) -> list[int | None]:
        """The process ids of the job's programs, seen from here."""
        return [host.pid for host in self._runners[job].hosts]

    def interrupt(self, job: str, warned: bool = True) -> None:
        """Takes the Spot instance away: SIGTERM and two minutes, or (`warned=False`) at once."""
        if not self.jobs[job].spot:
            raise ValueError(f"{job!r} does not run on Spot instances")
        self.jobs[job].interruption = "warned" if warned else "killed"

    def forget(self, job: str) -> None:
        """Deletes the job by hand; its program ends."""
        gone = self.jobs.pop(job)
        gone.stop_asked.set()

    def control(self, do: str, **arguments: Any) -> Any:
        """A verb of Faults, or `interrupt`, `forget`, `make_bucket`."""
        target = self if do in ("interrupt", "forget", "make_bucket") else self.faults
        verb = getattr(target, do, None)
        if do.startswith(("_", "take_", "raise_")) or not inspect.ismethod(verb):
            raise ValueError(f"{do!r} is no verb of this service")
        return verb(**arguments)

    def state(self) -> dict[str, Any]:
        return {
            "jobs": {name: {**job.describe(), "Attempts": job.attempts} for name, job in self.jobs.items()},
            "calls": [[call.operation, call.error] for call in self.calls],
            "contained": self.plant.contained,
        }

    def serve(self, target: str, body: bytes, authorization: str) -> Answer:
        operation = target.rpartition(".")[2]
        request: dict[str, Any] = {}
        error: ServiceError | None = None
        try:
            try:
                request = json.loads(body or b"{}")
            except ValueError as err:
                raise ServiceError("SerializationException", str(err)) from err
            region = _region(authorization)
            self.faults.raise_for(operation)
            constraints.check(operation, request)
            return answer(self._operations.call(operation, request, region))
        except ServiceError as err:
            error = err
            return error_answer(err)
        finally:
            self.calls.append(Call(operation, request, error.code if error else None, time.monotonic()))


def _region(authorization: str) -> str:
    scope = re.search(r"Credential=[^/]+/\d{8}/([a-z0-9-]+)/sagemaker/", authorization)
    if scope is None:
        raise ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
    return scope[1]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], service: Service) -> None:
        self.service = service
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        service = self.server.service
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.rstrip("/") == "/control":
            self._send(_controlled(service, body))
            return
        if service.faults.network_is_away():
            self.close_connection = True
            clouds.reset_connection(self.connection)
            return
        self._send(service.serve(self.headers.get("X-Amz-Target", ""), body, self.headers.get("Authorization", "")))

    def do_GET(self) -> None:
        if self.path == CREDENTIALS_PATH:
            keys = clouds.KEYS
            self._send(answer({
                "AccessKeyId": keys["AWS_ACCESS_KEY_ID"], "SecretAccessKey": keys["AWS_SECRET_ACCESS_KEY"],
                "Token": "emulated", "Expiration": "2099-01-01T00:00:00Z",
            }))  # fmt: skip
        elif self.path.rstrip("/") == "/control":
            self._send(answer(self.server.service.state()))
        else:
            self._send(answer({"message": "not found"}, 404))

    def _send(self, reply: Answer) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def _controlled(service: Service, body: bytes) -> Answer:
    try:
        arguments = json.loads(body)
        return answer({"result": service.control(arguments.pop("do"), **arguments)})
    except (ValueError, TypeError, KeyError) as err:
        return answer({"message": f"{type(err).__name__}: {err}"}, 400)
