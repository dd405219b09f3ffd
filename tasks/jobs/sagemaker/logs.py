"""CloudWatch's lines of one job, each once, in the order of their times; a spot restart opens new streams, they count too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rightcall.job.metrics_log import MARK
from tasks.aws import errors
from tasks.jobs.sagemaker.endings import LOG_GROUP

PAGES_A_LOOK = 50  # of up to 10,000 lines or 1 MB each: a job that writes more is read to its end by later looks


class JobLog:
    """Reads on from where the last look ended and keeps all lines in a file."""

    def __init__(self, client: Any, job: str, file: Path, *, several_hosts: bool = False) -> None:
        """``several_hosts``: every line says whose it is."""
        self.client, self.job, self.file, self.several_hosts = client, job, file, several_hosts
        self._tokens: dict[str, str] = {}  # by stream
        self._fetched: list[tuple[int, str, str]] = []  # (milliseconds, stream, text), not given yet

    def read(self) -> tuple[list[str], list[str]]:
        """The new (metrics lines as JSON, other lines).

        Raises:
            ClientError: CloudWatch refused; nothing is lost, the next look gives it.
            BotoCoreError: CloudWatch did not answer; the next look gives it.
        """
        for stream in self._streams():
            self._read_stream(stream)
        found, self._fetched = sorted(self._fetched, key=lambda event: event[0]), []  # stable within a stream
        lines = [f"[{_host(stream)}] {text}" if self.several_hosts else text for _, stream, text in found]
        self._keep(lines)
        metrics = [text.partition(MARK)[2] for _, _, text in found if text.startswith(MARK)]
        return metrics, [line for line, event in zip(lines, found, strict=True) if not event[2].startswith(MARK)]

    def _streams(self) -> list[str]:
        from botocore.exceptions import ClientError

        try:
            pages = self.client.get_paginator("describe_log_streams").paginate(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.job}/"
            )
            return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        except ClientError as err:
            if (
                errors.code_of(err) == "ResourceNotFoundException"
            ):  # before the first container of this account has written
                return []
            raise

    def _read_stream(self, stream: str) -> None:
        for _ in range(PAGES_A_LOOK):
            token = self._tokens.get(stream)
            answer = self.client.get_log_events(
                logGroupName=LOG_GROUP,
                logStreamName=stream,
                startFromHead=True,
                **({"nextToken": token} if token else {}),
            )
            self._fetched += [(event["timestamp"], stream, event["message"].rstrip("\n")) for event in answer["events"]]
            self._tokens[stream] = answer["nextForwardToken"]
            if answer["nextForwardToken"] == token:
                return

    def _keep(self, lines: list[str]) -> None:
        if lines:
            with self.file.open("a", encoding="utf-8") as sink:
                sink.writelines(f"{line}\n" for line in lines)


def _host(stream: str) -> str:
    """ "job/algo-1-1700000000" → "algo-1" """
    return stream.rpartition("/")[2].rpartition("-")[0]
