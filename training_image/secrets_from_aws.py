"""Variables that a job's request names by the ARN of a Secrets Manager secret, fetched in the container only.

``RIGHTCALL_SECRET_HF_TOKEN=arn:aws:secretsmanager:…`` becomes ``HF_TOKEN=<what the secret holds>``. A secret that is
a JSON object gives the value under the variable's name. The job's role needs secretsmanager:GetSecretValue.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from rightcall.errors import BackendError

PREFIX = "RIGHTCALL_SECRET_"


def fetch_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that ``environ`` names secrets for, with their values; without any, boto3 is not imported.

    Raises:
        BackendError: a secret cannot be fetched; its value is never in a message.
    """
    wanted = {name.removeprefix(PREFIX): arn for name, arn in environ.items() if name.startswith(PREFIX)}
    return {name: _value(name, arn) for name, arn in wanted.items()}


def _value(name: str, arn: str) -> str:
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as err:
        raise BackendError(
            f"the secret {name!r} needs boto3 in the image ({err}); add it there (make image does)"
        ) from err
    region = arn.split(":")[3]
    try:
        text = boto3.client("secretsmanager", region_name=region).get_secret_value(SecretId=arn).get("SecretString")
    except ClientError as err:
        code = err.response.get("Error", {}).get("Code")
        raise BackendError(
            f"the secret {name!r} ({arn!r}) could not be fetched ({code}); the job's role needs secretsmanager:GetSecretValue "
            "on it, and kms:Decrypt where it has a key of its own"
        ) from err
    except BotoCoreError as err:
        raise BackendError(
            f"the secret {name!r} ({arn!r}) could not be fetched: {err}; with network_isolation a job reaches no secret manager, "
            "in a VPC it needs an endpoint for secretsmanager"
        ) from err
    if text is None:
        raise BackendError(f"the secret {name!r} ({arn!r}) is binary; store it as text")
    return _field(text, name)


def _field(text: str, name: str) -> str:
    """The value under ``name`` of a JSON object, else the whole text."""
    try:
        content = json.loads(text)
    except ValueError:
        return text
    return str(content[name]) if isinstance(content, dict) and name in content else text
