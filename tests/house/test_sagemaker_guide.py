"""docs/sagemaker.md is true: its JSON parses and is enough, its commands, fields and files exist."""

from __future__ import annotations

import ast
import itertools
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import xform_name
from s3_fixture import S3Server

from rightcall.errors import StoreError
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import ComputeSection, SagemakerSection
from tasks.aws import s3, transfers
from tasks.jobs.sagemaker.request import region_of
from tasks.machine.hashing import hash_file

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "sagemaker.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
COMMANDS = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL))
BUCKET, ACCOUNT, REGION = "my-team-rightcall", "111122223333", "eu-central-1"
AWS_REGISTRY = "763104351884"  # the account of AWS's deep-learning containers in most regions
TRANSFERS_OF_THE_CLI = {"mb", "rb", "rm"}  # `aws s3` is no API
# What the code calls on a boto3 client → what IAM calls it, where the two differ.
IAM_NAMES = {
    "s3:HeadObject": "s3:GetObject", "s3:ListObjectsV2": "s3:ListBucket", "s3:HeadBucket": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject", "s3:UploadPart": "s3:PutObject", "s3:CompleteMultipartUpload": "s3:PutObject",
}  # fmt: skip
TRANSFERS = {"download_file": "s3:GetObject", "upload_file": "s3:PutObject", "upload_fileobj": "s3:PutObject"}
SERVICES = ("sagemaker", "logs", "s3", "pricing", "secretsmanager", "sts")
# Not called by name: PassRole and AddTags come with CreateTrainingJob (in the SDK), the abort with a broken upload (s3transfer).
IMPLIED = {"sagemaker:CreateTrainingJob", "sagemaker:AddTags", "iam:PassRole", "s3:AbortMultipartUpload"}


@cache
def files() -> dict[str, dict[str, Any]]:
    """The JSON blocks by the file name that stands last before each."""
    found = {}
    for match in re.finditer(r"^```json\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE):
        name = re.findall(r"`([\w-]+\.json)`", GUIDE[: match.start()])[-1]
        assert name not in found, f"two blocks for {name}"
        found[name] = json.loads(match[1])
    return found


def policies() -> dict[str, dict[str, Any]]:
    return {name: content for name, content in files().items() if "Statement" in content}


def actions(*names: str) -> set[str]:
    listed = [statement["Action"] for name in names for statement in files()[name]["Statement"]]
    return {action for given in listed for action in ([given] if isinstance(given, str) else given)}


@cache
def operations(service: str) -> dict[str, str]:
    """Method of a boto3 client → operation."""
    names = botocore.session.get_session().get_service_model(service).operation_names
    return {xform_name(name): name for name in names}


def called(folder: Path) -> Iterator[tuple[str, str]]:
    """(IAM's action, file) of every call of an AWS client in the Python files of a folder, paginators included."""
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        # MLflow's client has create_experiment too, Prefect's delete_artifact
        if "import mlflow" in text or "from prefect.client" in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            receiver, method = ast.unparse(node.func.value), node.func.attr
            if "client" not in receiver:
                continue
            if method == "get_paginator" and isinstance(node.args[0], ast.Constant):
                method = str(node.args[0].value)
            service = next((name for name in SERVICES if method in operations(name)), None)
            if method in TRANSFERS:
                yield TRANSFERS[method], path.name
            elif service is not None:
                action = f"{service}:{operations(service)[method]}"
                yield IAM_NAMES.get(action, action), path.name


def test_every_json_block_has_a_file_name_and_every_file_of_a_command_is_there() -> None:
    used = set(re.findall(r"file://(\S+)", GUIDE))
    assert {"trust.json", "job-policy.json", "orchestrator-policy.json", "lifecycle.json"} <= used
    assert used <= set(files())
    assert {kind for kind, _ in BLOCKS} == {"sh", "json"}


@pytest.mark.parametrize("name", sorted(policies()))
def test_a_policy_is_one_that_iam_takes(name: str) -> None:
    import boto3
    from moto import mock_aws

    with mock_aws():
        iam = boto3.client("iam", region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing")
        if name == "trust.json":
            iam.create_role(RoleName="job", AssumeRolePolicyDocument=json.dumps(files()[name]))
        else:
            iam.create_policy(PolicyName="one", PolicyDocument=json.dumps(files()[name]))
    assert len(json.dumps(files()[name])) < 6144  # characters that a managed policy may have


def test_no_policy_gives_everything_of_a_service() -> None:
    wide = {
        "ecr:GetAuthorizationToken",
        "cloudwatch:PutMetricData",
        "pricing:GetProducts",
    }  # AWS knows no resource for them
    for name, policy in policies().items():
        for statement in policy["Statement"]:
            given = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
            assert all(re.fullmatch(r"[a-z0-9]+:[A-Z]\w+", action) for action in given), name
            if statement.get("Resource") == "*":
                assert set(given) <= wide or all(action.startswith("ec2:") for action in given), name


def test_every_action_of_a_policy_is_an_operation_of_its_service() -> None:
    iams_own = {
        "iam:PassRole",
        "s3:ListBucket",
        "ec2:CreateNetworkInterfacePermission",
        "ec2:DeleteNetworkInterfacePermission",
    }
    for name in policies():
        for action in actions(name) - iams_own:
            service, _, operation = action.partition(":")
            assert operation in operations(service).values(), f"{name}: {action}"


def test_the_orchestrators_policy_is_what_tasks_call_no_less_and_no_more() -> None:
    found = dict(called(ROOT / "tasks"))
    assert {"sagemaker:DescribeTrainingJob", "logs:GetLogEvents", "s3:ListBucket", "pricing:GetProducts"} <= set(found)
    assert set(found) | IMPLIED == actions("orchestrator-policy.json"), found


def test_the_jobs_role_may_what_the_program_calls() -> None:
    assert dict(called(ROOT / "training_image")).keys() <= actions("job-policy.json", "job-options-policy.json")


def test_the_role_is_assumed_by_sagemaker_and_passed_to_sagemaker_alone() -> None:
    (trust,) = files()["trust.json"]["Statement"]
    assert trust["Principal"] == {"Service": "sagemaker.amazonaws.com"}
    (passed,) = [
        entry for entry in files()["orchestrator-policy.json"]["Statement"] if entry["Action"] == "iam:PassRole"
    ]
    assert passed["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert passed["Resource"].endswith(":role/rightcall-job")


@contextmanager
def holder_of(policy: str, bucket: str, endpoint: str) -> Iterator[s3.Address]:
    """Inside, every request is made by, and judged as, a user with the policy alone (for this bucket)."""
    import boto3
    from moto.core.authorization import enable_iam_authentication

    iam = boto3.client("iam", endpoint_url=endpoint)
    user = f"holder-{bucket}"
    iam.create_user(UserName=user)
    document = json.dumps(files()[policy]).replace(BUCKET, bucket)
    iam.put_user_policy(UserName=user, PolicyName="only", PolicyDocument=document)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    with pytest.MonkeyPatch.context() as patch, enable_iam_authentication():
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        yield s3.parse_address(f"s3://{bucket}/rightcall")


def test_the_store_works_under_the_orchestrators_policy_and_only_below_its_prefix(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    model = {"model.bin": hash_file(tmp_path / "model.bin")}
    with holder_of("orchestrator-policy.json", s3_bucket, s3_server.endpoint_url) as store:
        assert s3.put(store, ".locks/sft", b"lease", new=True)
        transfers.upload(tmp_path, store, "sft/1a2b/", model)
        transfers.download(store, "sft/1a2b/", model, tmp_path / "back")
        assert (tmp_path / "back" / "model.bin").read_bytes() == b"weights"
        assert s3.delete(store, ".locks/sft")
        with pytest.raises(StoreError, match="access denied"):
            s3.put(s3.parse_address(f"s3://{s3_bucket}/other"), "file", b"")


def test_a_job_may_read_the_store_and_write_to_its_own_folder_but_not_to_a_sealed_result(
    s3_server: S3Server, s3_bucket: str
) -> None:
    with holder_of("job-policy.json", s3_bucket, s3_server.endpoint_url) as store:
        assert s3.put(store, ".jobs/sft/1a2b/checkpoints/step", b"state")
        assert s3.get(store, ".jobs/sft/1a2b/checkpoints/step")
        assert s3.delete(store, ".jobs/sft/1a2b/checkpoints/step")
        assert s3.list_objects(store, "base/") == {}
        with pytest.raises(StoreError, match="access denied"):
            s3.put(store, "base/1a2b/manifest.json", b"{}")


def test_every_make_verb_and_module_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    verbs = {command.split()[1] for command in [*COMMANDS, *INLINE] if re.match(r"make [a-z]", command)}
    assert {"image", "quickstart-sagemaker", "image-test"} <= verbs
    assert [verb for verb in verbs if not re.search(rf"^{verb}:", makefile, re.MULTILINE)] == []
    modules = set(re.findall(r"python -m ([a-z_.]+)", GUIDE))
    assert {"flows.pipeline", "tasks.costs.prices"} <= modules
    assert [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").is_file()] == []


def test_every_variable_of_make_image_is_one_that_the_makefile_knows() -> None:
    target = (ROOT / "Makefile").read_text().partition("\nimage:")[2].partition("\n\n")[0]
    given = {"IMAGE", "BASE_IMAGE", "PIP_CONF", "FLASH_ATTENTION", "RUN_AS"}
    assert all(f"$({name})" in target for name in given)
    assert all(f"{name}=" in GUIDE for name in given)


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"\b((?:tasks|training_image|recipes|docs)/[\w./-]+\.(?:py|json|txt|yaml|md))\b", GUIDE))
    assert {"recipes/qwen3-0.6b/lora.yaml", "training_image/requirements.txt", "tasks/costs/prices.json"} <= named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def aws_commands() -> list[list[str]]:
    """The words after `aws` of every command, those of a pipe and of NAME=$(…) too."""
    lines = [re.sub(r"^\w+=\$\((.*)\)$", r"\1", command.strip()) for command in [*COMMANDS, *INLINE]]
    return [shlex.split(part)[1:] for line in lines for part in line.split(" | ") if part.startswith("aws ")]


def test_every_aws_command_and_option_is_one_of_the_api() -> None:
    session = botocore.session.get_session()
    commands = [words for words in aws_commands() if len(words) > 1 and words[0] != "sso"]
    assert len(commands) > 20
    for service, verb, *rest in commands:
        if service == "s3":
            assert verb in TRANSFERS_OF_THE_CLI
            continue
        if (service, verb) == ("ecr", "get-login-password"):  # the CLI's own
            continue
        model = session.get_service_model({"s3api": "s3"}.get(service, service))
        operation = {xform_name(name, "-"): name for name in model.operation_names}[verb]
        members = {xform_name(name, "-") for name in model.operation_model(operation).input_shape.members}
        given = {word.removeprefix("--") for word in rest if word.startswith("--")} - {"query", "output", "region"}
        assert given <= members, (service, verb)


def test_every_field_of_the_compute_section_that_is_named_exists_and_none_of_sagemakers_is_missing() -> None:
    table = GUIDE.partition("## Options")[2].partition("\n\nWhat the job")[0]
    cells = [line.split("|")[2] for line in table.splitlines() if line.startswith("|")][2:]
    fields = {re.match(r"[\w.]+", text)[0] for cell in cells for text in re.findall(r"`([a-z_][^`]*)`", cell)}  # type: ignore[index]
    fields = {name for name in fields if not name.startswith("rightcall")}
    dotted = set(re.findall(r"compute\.([\w.]+\w)", GUIDE))
    known = set(SagemakerSection.model_fields) | set(ComputeSection.model_fields)
    assert {name.split(".")[-1] for name in fields | dotted} <= known
    assert set(SagemakerSection.model_fields) <= {name.split(".")[-1] for name in fields | dotted} | {"region"}
    for name in dotted:
        section = SagemakerSection if name.startswith("sagemaker.") else ComputeSection
        assert name.split(".")[-1] in section.model_fields, name


def test_the_first_jobs_take_their_overrides_and_run_where_the_guide_says() -> None:
    cpu, gpu = [first_job(line) for line in COMMANDS if "flows.pipeline" in line]
    assert {recipe.compute.backend for recipe in (cpu, gpu)} == {"sagemaker"}
    assert (cpu.compute.sagemaker.instance_type, cpu.compute.sagemaker.spot) == ("ml.m5.xlarge", False)
    assert (gpu.compute.sagemaker.instance_type, gpu.compute.sagemaker.spot) == ("ml.g5.2xlarge", True)


def first_job(command: str) -> Recipe:
    words = shlex.split(command)
    overrides = [value for option, value in itertools.pairwise(words) if option == "--set"]
    return load_recipe(ROOT / next(word for word in words if word.endswith(".yaml")), overrides)


def test_the_region_that_the_guide_exports_is_that_of_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 itself reads AWS_DEFAULT_REGION alone."""
    assert f"export AWS_REGION={REGION}" in COMMANDS
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_REGION", REGION)
    assert region_of(load_recipe(ROOT / "recipes/quickstart.yaml")) == REGION


def test_every_variable_of_ours_is_read_somewhere() -> None:
    code = "".join(path.read_text() for folder in ("tasks", "flows") for path in (ROOT / folder).rglob("*.py"))
    variables = set(re.findall(r"\bRIGHTCALL_\w+", GUIDE))
    assert {"RIGHTCALL_IMAGE", "RIGHTCALL_SAGEMAKER_ROLE", "RIGHTCALL_STORE"} <= variables
    assert [name for name in variables if f'"{name}"' not in code] == []


def test_placeholders_are_the_same_everywhere() -> None:
    """So that three replacements make the files one's own."""
    assert set(re.findall(r"\b\d{12}\b", re.sub(r"[0-9a-f]{32}|[0-9a-f-]{36}", "", GUIDE))) == {ACCOUNT, AWS_REGISTRY}
    assert set(re.findall(r"\b(?:eu|us)-[a-z]+-\d\b", GUIDE)) == {REGION}
    assert {arn.split(":::")[1].split("/")[0] for arn in re.findall(r"arn:aws:s3:::[\w/.*-]+", GUIDE)} == {BUCKET}
