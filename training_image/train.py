"""One training process: reads the job, runs its stage, and writes the failure file when that raises."""

from __future__ import annotations

import faulthandler
import importlib
import logging
import os
import signal
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this folder travels alone, uninstalled

from rightcall import paths

STAGES = {"base": "rightcall.base", "sft": "rightcall.sft", "dpo": "rightcall.dpo", "score": "rightcall.scoring"}
RESUMABLE = ("sft", "dpo")
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # the model is in a channel: nothing is ever downloaded here
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "warning",
    "TQDM_DISABLE": "1",  # progress is in metrics.jsonl
    "TOKENIZERS_PARALLELISM": "false",
    "ACCELERATE_MIXED_PRECISION": "no",  # the recipe decides, not what is left in the environment
}


def prepare_process(stage: str, threads: int | None) -> None:
    """Settings that must stand before torch and transformers are imported."""
    os.environ.update(ENVIRONMENT)
    os.environ["OMP_NUM_THREADS"] = str(threads or os.cpu_count() or 1)
    if "RANK" not in os.environ:  # one process trains on one GPU
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    if stage in RESUMABLE:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # the stop flag is looked at after every step


def failure_text(err: BaseException) -> str:
    """The error first (SageMaker shows 1,024 characters), then the innermost frames."""
    frames = "".join(traceback.format_tb(err.__traceback__)[-6:])
    return f"{type(err).__name__}: {err}\n\n{frames}"


def main() -> int:
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    for name in ("httpx", "datasets", "filelock", "fsspec"):
        logging.getLogger(name).setLevel(logging.WARNING)
    where = paths.folders()
    try:
        job = paths.load_job()
        prepare_process(job.stage, job.recipe.compute.threads)
        importlib.import_module(STAGES[job.stage]).run(job)
    except Exception as err:  # the one boundary where every error ends: as text in the failure file
        logging.getLogger("rightcall").exception("the stage failed")
        where.failure.parent.mkdir(parents=True, exist_ok=True)
        where.failure.write_text(failure_text(err), encoding="utf-8")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
