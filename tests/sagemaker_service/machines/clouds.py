"""The services around SageMaker, by moto: S3, Logs, STS, IAM; with a network that can go away."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import boto3
from botocore.config import Config
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from s3_fixture import S3Server
from werkzeug.serving import make_server

from sagemaker_service.api.ranges import reading_ranges

ACCOUNT = "123456789012"
ROLE_NAME = "rightcall-sagemaker"
IMAGE = f"{ACCOUNT}.dkr.ecr.{{region}}.amazonaws.com/rightcall:latest"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEMULATEDSERVICE0", "AWS_SECRET_ACCESS_KEY": "of-no-use-anywhere"}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def reset_connection(connection: socket.socket) -> None:
    """The other side reads that the connection was closed or reset before an answer came."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):  # the client has gone already
        connection.shutdown(socket.SHUT_RDWR)  # the server's reader holds the socket open over a mere close()
    connection.close()


class Clouds:
    """moto's server in threads of this process."""

    def __init__(self, network_is_away: Callable[[], bool], port: int = 0) -> None:
        self.s3 = S3Server()  # conditional writes that are atomic, and S3's own faults
        moto = self.s3.around(reading_ranges(DomainDispatcherApplication(create_backend_app), ACCOUNT))
        logging.getLogger("werkzeug").setLevel(logging.WARNING)  # it logs every request

        def application(environ: dict[str, Any], respond: Any) -> Iterable[bytes]:
            if network_is_away():
                reset_connection(environ["werkzeug.socket"])
                raise ConnectionResetError("the network is away")
            return moto(environ, respond)

        self._server = make_server("127.0.0.1", port, application, threaded=True, request_handler=MotoRequestHandler)
        self._server.daemon_threads = True
        self.url = self.s3.endpoint_url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="moto")
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def client(service: str, url: str, region: str) -> Any:
    """For the service's own use; it retries long enough for a network that was taken away on purpose to come back."""
    config = Config(retries={"mode": "standard", "max_attempts": 8}, s3={"addressing_style": "path"})
    return boto3.client(
        service, endpoint_url=url, region_name=region, config=config, aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip


def make_role(iam: Any, name: str = ROLE_NAME, trust: dict[str, Any] | None = None) -> str:
    """The role's ARN."""
    try:
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust or TRUST))
    except iam.exceptions.EntityAlreadyExistsException:
        made = iam.get_role(RoleName=name)
    return str(made["Role"]["Arn"])


def make_bucket(s3: Any, name: str, region: str) -> None:
    elsewhere = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        s3.create_bucket(Bucket=name, **elsewhere)
    except (s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
        return


def environment(aws_url: str, sagemaker_url: str, region: str, role: str) -> dict[str, str]:
    """What a client needs to find all of it."""
    services = ("S3", "LOGS", "STS", "IAM", "SECRETS_MANAGER", "CLOUDWATCH", "ECR", "KMS")
    return KEYS | {f"AWS_ENDPOINT_URL_{name}": aws_url for name in services} | {
        "AWS_ENDPOINT_URL": aws_url,
        "AWS_ENDPOINT_URL_SAGEMAKER": sagemaker_url,
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "RIGHTCALL_SAGEMAKER_ROLE": role,
        "RIGHTCALL_IMAGE": IMAGE.format(region=region),
    }  # fmt: skip
