"""Secrets that a job fetches itself: from a Secrets Manager that really answers."""

from __future__ import annotations

import json
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from rightcall.errors import BackendError
from secrets_from_aws import fetch_secrets

REGION = "eu-central-1"


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-no-use")
    yield
    server.stop()


def secret(name: str, text: str) -> str:
    """Its ARN."""
    return str(boto3.client("secretsmanager", region_name=REGION).create_secret(Name=name, SecretString=text)["ARN"])


@pytest.mark.parametrize("text", ["hf_a token", json.dumps({"HF_TOKEN": "hf_a token", "other": "x"})])
def test_a_variable_gets_what_its_secret_holds(manager: None, text: str) -> None:
    environ = {"RIGHTCALL_SECRET_HF_TOKEN": secret(f"team/{len(text)}", text)}
    assert fetch_secrets(environ) == {"HF_TOKEN": "hf_a token"}


def test_without_secrets_nothing_happens() -> None:
    assert fetch_secrets({"PATH": "/bin"}) == {}


def test_a_secret_that_cannot_be_had_says_which_and_what_the_role_needs(manager: None) -> None:
    arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:gone-AbCdEf"
    with pytest.raises(BackendError, match=r"'HF_TOKEN' .*gone-AbCdEf.*ResourceNotFoundException.*GetSecretValue"):
        fetch_secrets({"RIGHTCALL_SECRET_HF_TOKEN": arn})
