"""`python -m sagemaker_service --root DIR`: serves until it is ended; its environment is one line of JSON on stdout."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from pathlib import Path

from sagemaker_service.api.service import Service


def main() -> None:
    options = argparse.ArgumentParser(prog="sagemaker_service", description=__doc__)
    options.add_argument("--root", type=Path, required=True, help="folder of the jobs' hosts")
    options.add_argument("--port", type=int, default=0, help="0 = a free one")
    options.add_argument("--moto-port", type=int, default=0, help="of S3, Logs, STS and IAM; 0 = a free one")
    options.add_argument("--aws", help="URL of a running moto server, instead of one of its own")
    options.add_argument("--region", default="us-east-1")
    options.add_argument("--bucket", action="append", default=[], help="make this bucket")
    options.add_argument("--isolation", choices=("auto", "namespace", "process"), default="auto")
    options.add_argument(
        "--limit-scale", type=float, default=1.0, help="of MaxRuntime, MaxWait and the two minutes' grace"
    )
    options.add_argument("--start-seconds", type=float, default=0.0, help="that an instance takes to start")
    options.add_argument("--keep-folders", action="store_true", help="leave what the hosts had on disk")
    chosen = vars(options.parse_args())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    for name in ("botocore", "werkzeug"):
        logging.getLogger(name).setLevel(logging.WARNING)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    buckets = chosen.pop("bucket")
    with Service(chosen.pop("root"), **chosen) as service:
        for bucket in buckets:
            service.make_bucket(bucket)
        sys.stdout.write(json.dumps(service.environment) + "\n")
        sys.stdout.flush()
        ended.wait()


if __name__ == "__main__":
    main()
