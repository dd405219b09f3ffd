"""`make quickstart-sagemaker`: a recipe's stages as SageMaker jobs, without an account; S3 lies between them.

    PYTHONPATH=tests:tests/support/services python -m sagemaker_service.quickstart [recipe] [--set SECTION.FIELD=VALUE …]

Starts the emulated service, runs the pipeline against it, and ends everything. The bucket is gone then; the report, MLflow
and Prefect stay in a home of their own, because a registered model whose weights were in that bucket is none.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from rightcall.job.parent_death import die_with_parent
from sagemaker_service.machines.process import CHECKOUT, ServiceProcess
from tasks.machine.environment import DEFAULTS

BUCKET = "rightcall-quickstart"
HOME = CHECKOUT / ".rightcall" / "quickstart-sagemaker"
COMPUTE = ("--set", "compute.backend=sagemaker", "--set", "compute.sagemaker.instance_type=ml.m5.xlarge")


def own_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's variables, without the account and without what importing tasks has set here: it leads to the usual home."""
    return {
        name: value for name, value in environ.items() if not name.startswith("AWS_") and DEFAULTS.get(name) != value
    }


def run_pipeline(service: ServiceProcess, arguments: list[str]) -> int:
    """The pipeline's exit code."""
    own = own_environment(os.environ)
    home = {"RIGHTCALL_HOME": own.get("RIGHTCALL_HOME", str(HOME)), "RIGHTCALL_POLL_SECONDS": "1"}
    pipeline = subprocess.Popen(
        [sys.executable, "-m", "flows.pipeline", *arguments, *COMPUTE, "--store", f"s3://{BUCKET}/store"],
        env=own | home | service.environment, cwd=CHECKOUT,
        preexec_fn=die_with_parent(parent=os.getpid()),  # noqa: PLW1509  one system call, no locks
    )  # fmt: skip

    def terminate(number: int, frame: FrameType | None) -> None:
        pipeline.terminate()

    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends Ctrl-C to the pipeline too, which ends in order
    code = pipeline.wait()
    jobs = service.state()["jobs"]
    ends = ", ".join(f"{name} {job['TrainingJobStatus']}" for name, job in jobs.items()) or "none"
    sys.stderr.write(
        f"\nJobs of the emulated SageMaker: {ends}\nIts bucket is gone, and with it the registered model's weights; report, "
        f"Prefect and MLflow stay in {home['RIGHTCALL_HOME']}\n"
    )
    return code


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("--"):
        arguments = ["recipes/quickstart.yaml", *arguments]
    with (
        tempfile.TemporaryDirectory(prefix="rightcall-sagemaker-") as folder,
        ServiceProcess(Path(folder), "--bucket", BUCKET) as service,
    ):
        return run_pipeline(service, arguments)


if __name__ == "__main__":
    sys.exit(main())
