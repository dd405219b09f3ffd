"""What users read when S3 refuses, and which of it is tried again; from a real HTTP server that answers as S3 does."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from s3_fixture import ACCESS_KEY, SECRET_KEY, Fault, S3Server

from rightcall.errors import SourceError, StoreError
from tasks.aws import clients
from tasks.data.sources import fetch
from tasks.runtime.retries import is_transient
from tasks.store.manifests import ArtifactRef
from tasks.store.opening import open_store
from tasks.store.s3_store import S3Store


@pytest.fixture
def store(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.setenv("RIGHTCALL_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    found = open_store(f"s3://{s3_bucket}/team/store")
    assert isinstance(found, S3Store)
    return found


def put(store: S3Store) -> ArtifactRef:
    work = store.workdir("sft", "k1", empty=True)
    (work / "weights").write_text("w")
    return store.commit("sft", "k1", "model", work, {"result": {}})


def refused(store: S3Store) -> StoreError:
    with pytest.raises(StoreError) as caught:
        store.find("sft", "k1")
    return caught.value


@pytest.mark.parametrize(
    ("fault", "said", "transient"),
    [
        (Fault("", 400, "ExpiredToken"), "credentials have expired.*log in again .aws sso login", False),
        (Fault("", 403, "InvalidAccessKeyId"), "does not know the credentials.*AWS_PROFILE", False),
        (Fault("", 403, "SignatureDoesNotMatch"), "does not know the credentials", False),
        (Fault("", 403, "RequestTimeTooSkewed"), "clock of this machine is wrong", False),
        (Fault("", 403, "AccessDenied", "User: arn:aws:iam::1:user/x is not authorized to perform: s3:ListBucket"),
         r"access denied \(User: arn:aws:iam::1:user/x is not.*belongs to another account.*s3:ListBucket", False),
        (Fault("", 403, "AllAccessDisabled"), "access denied", False),
        (Fault("", 301, "PermanentRedirect", headers=(("x-amz-bucket-region", "eu-west-3"),)),
         "is in region 'eu-west-3', not in 'us-east-1'; set AWS_REGION", False),
        (Fault("", 400, "AuthorizationHeaderMalformed", more="<Region>eu-west-3</Region>"),
         "is in region 'eu-west-3', not in 'us-east-1'; set AWS_REGION", False),
        (Fault("", 503, "SlowDown"), r"it is busy \(SlowDown, 2 tries with growing pauses\); run the same command", True),
        (Fault("", 500, "InternalError"), "it is busy", True),
        (Fault("", 409, "BucketNotReady", "later"), "BucketNotReady: later; check the bucket", False),
    ],
    ids=lambda value: value.code if isinstance(value, Fault) else "",
)  # fmt: skip
def test_what_s3_refuses_is_said_with_what_to_do(
    store: S3Store, s3_server: S3Server, fault: Fault, said: str, transient: bool
) -> None:
    s3_server.faults.append(fault)
    error = refused(store)
    assert str(error).startswith(f"S3 refused 's3://{store.remote.bucket}/team/store/sft/k1/': ")
    with pytest.raises(StoreError, match=said):
        raise error
    assert is_transient(error) is transient


def test_a_slow_down_is_tried_again_with_pauses(store: S3Store, s3_server: S3Server) -> None:
    put(store)
    s3_server.faults.append(Fault("^GET .*list-type", 503, "SlowDown", times=1))
    s3_server.seen.clear()
    assert store.find("sft", "k1") is not None
    assert sum("list-type" in request.path for request in s3_server.seen) == 2


def test_a_bucket_that_does_not_exist_is_named(store: S3Store) -> None:
    with pytest.raises(StoreError, match="there is no bucket 'absent-one'; .*aws s3 mb s3://absent-one"):
        open_store("s3://absent-one/x").find("sft", "k1")


def test_no_credentials_say_how_to_get_some(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no AWS credentials for 's3://" in str(refused(store))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "correct AWS_PROFILE" in str(refused(store))


def test_an_endpoint_that_does_not_answer_is_named_and_passes_by_itself(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    error = refused(store)
    assert "S3 could not be reached" in str(error)
    assert "AWS_ENDPOINT_URL_S3" in str(error)
    assert is_transient(error)


def test_the_region_may_be_told_by_either_variable(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clients.s3().meta.region_name == "us-east-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert clients.s3().meta.region_name == "eu-west-3"


def test_no_credential_is_in_a_log_or_an_error(
    store: S3Store, s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    said = []
    with caplog.at_level(logging.INFO):
        put(store)
        for code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken"):
            more = f"<AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId><Token-0>{SECRET_KEY}</Token-0>"
            s3_server.faults[:] = [Fault("", 403, code, more=more)]
            error = refused(store)
            said += [str(error), repr(error.__cause__)]
    assert "MB sent to s3://" in caplog.text
    for text in (caplog.text, *said):
        assert ACCESS_KEY not in text
        assert SECRET_KEY not in text
        assert "wJalr" not in text


def test_a_source_in_s3_has_the_same_errors_as_a_source(store: S3Store, s3_server: S3Server, tmp_path: Path) -> None:
    s3_server.faults.append(Fault("", 400, "ExpiredToken"))
    with pytest.raises(SourceError, match=r"S3 refused 's3://rows/a.jsonl': the AWS credentials have expired"):
        fetch("s3://rows/a.jsonl", sha256=None, cache=tmp_path / "cache")
    s3_server.faults[:] = [Fault("", 503, "SlowDown")]
    with pytest.raises(SourceError, match="it is busy") as caught:
        fetch("s3://rows/a.jsonl", sha256=None, cache=tmp_path / "cache")
    assert is_transient(caught.value)


def test_an_object_that_is_replaced_while_it_is_read_is_said(
    store: S3Store, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = put(store)
    monkeypatch.setenv("RIGHTCALL_MIRROR", str(tmp_path / "another"))
    elsewhere = open_store(store.address)
    s3_server.faults.append(Fault("^GET .*weights", 412, "PreconditionFailed"))
    with pytest.raises(StoreError, match=r"did not match expected ETag.*; .*run the same command again"):
        elsewhere.path(ref)
