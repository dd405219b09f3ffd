"""One training process: reads the job, runs its stage, and says why when that raises.

Under torchrun (RANK is set) it is one of several: it dies with torchrun, and a stop on request ends with status 0 and a
mark, since torchrun takes anything else for a failure and kills the others.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.metadata
import json
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this folder travels alone, uninstalled

from rightcall.job import failures, folders, launch
from rightcall.job.parent_death import die_with_parent
from rightcall.job.stage_table import STAGES

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "tokenizers", "numpy")
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # the model is in a channel: nothing is ever downloaded here
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "warning",
    "TQDM_DISABLE": "1",  # progress is in metrics.jsonl
    "TOKENIZERS_PARALLELISM": "false",
    "ACCELERATE_MIXED_PRECISION": "no",  # the recipe decides, not what is left in the environment
}


def prepare_process(threads: int | None) -> None:
    """Settings that must be set before torch and transformers are imported."""
    os.environ.update(ENVIRONMENT)
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    os.environ["OMP_NUM_THREADS"] = str(threads or max(1, (os.cpu_count() or 1) // sharing))
    if "RANK" not in os.environ:  # one process trains on one GPU
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def note_versions(summary: Path) -> None:
    """What made the result goes into its summary: a container's libraries are not those of the orchestrator."""
    found = json.loads(summary.read_text(encoding="utf-8"))
    found["versions"] = {name: importlib.metadata.version(name) for name in LIBRARIES if name in sys.modules}
    summary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    faulthandler.enable()
    one_of_many = "RANK" in os.environ
    if one_of_many:
        die_with_parent()()
        failures.begin(folders.folders())
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    for name in ("httpx", "datasets", "filelock", "fsspec"):
        logging.getLogger(name).setLevel(logging.WARNING)
    where = folders.folders()
    try:
        job = folders.load_job()
        prepare_process(job.recipe.compute.threads)
        importlib.import_module(STAGES[job.stage].module).run(job)
        if os.environ.get("RANK", "0") == "0":
            note_versions(job.output / "summary.json")
    except SystemExit as end:
        if not one_of_many or end.code != folders.STOPPED:
            raise
        where.stop_flag.with_name(launch.STOPPED_FILE).touch()
    except Exception as err:  # the one boundary where every error ends: as text in the failure file
        logging.getLogger("rightcall").exception("the stage failed")
        failures.report(err, where)
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    if "RANK" in os.environ:
        # Everything is written. DeepSpeed's hooks and gloo's threads may crash or hang while the interpreter shuts down
        # (seen with ZeRO-3 on a CPU), and torchrun would call that a failure.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
