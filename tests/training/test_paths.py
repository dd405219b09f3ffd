"""The container contract: folders, channels, the job file, and how light the first process is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rightcall.errors import BackendError, RecipeError
from rightcall.job import folders

TRAINING_IMAGE = Path(folders.__file__).parents[2]


def test_the_root_is_opt_ml_unless_the_environment_names_another() -> None:
    assert folders.folders({}).model == Path("/opt/ml/model")
    where = folders.folders({"SM_ML_ROOT": "/job"})
    assert (where.model, where.checkpoints) == (Path("/job/model"), Path("/job/checkpoints"))
    assert (where.output, where.failure) == (Path("/job/output/data"), Path("/job/output/failure"))


def test_sagemaker_variables_move_single_folders() -> None:
    where = folders.folders({"SM_ML_ROOT": "/job", "SM_MODEL_DIR": "/fast/model", "SM_OUTPUT_DATA_DIR": "/fast/data"})
    assert (where.model, where.output, where.failure) == (
        Path("/fast/model"),
        Path("/fast/data"),
        Path("/job/output/failure"),
    )


def test_a_channel_variable_wins_over_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_CHANNEL_DATASET", str(tmp_path / "elsewhere"))
    where = folders.folders({"SM_ML_ROOT": str(tmp_path)})
    assert where.channel("dataset") == tmp_path / "elsewhere"
    assert where.channel("model") == tmp_path / "input/data/model"


def test_no_other_module_of_the_training_image_knows_the_default_root() -> None:
    knowing = [path.name for path in TRAINING_IMAGE.rglob("*.py") if "/opt/ml" in path.read_text(encoding="utf-8")]
    assert knowing == ["folders.py"]


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        (None, BackendError, "job.json' is missing"),
        ("{", BackendError, "cannot be read"),
        ("[]", BackendError, "holds a list, not an object"),
        ('{"stage": "rlhf"}', BackendError, "names the stage 'rlhf'; it must be one of base, sft, mine, dpo, score"),
        ('{"stage": "sft", "recipe": {"nmae": "x"}}', RecipeError, "does not fit this version of rightcall"),
    ],
)
def test_a_broken_job_file_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str | None, error: type[Exception], message: str
) -> None:
    monkeypatch.setenv("SM_ML_ROOT", str(tmp_path))
    (tmp_path / "input/data/job").mkdir(parents=True)
    if job is not None:
        (tmp_path / "input/data/job/job.json").write_text(job)
    with pytest.raises(error, match=message):
        folders.load_job()


def test_the_first_process_imports_nothing_heavy() -> None:
    code = "import sys, entry; print([m for m in ('torch', 'transformers', 'pydantic', 'numpy') if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(TRAINING_IMAGE)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def run_entry(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TRAINING_IMAGE / "entry.py")],
        env=os.environ | {"SM_ML_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_failure_file_holds_the_error_and_where_it_was_raised(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output/failure").write_text("of the last attempt")
    assert run_entry(tmp_path).returncode == 1
    failure = (tmp_path / "output/failure").read_text()
    assert failure.startswith("BackendError: ")
    assert "job.json' is missing" in failure
    assert "folders.py" in failure
    assert "last attempt" not in failure
