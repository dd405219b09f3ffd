"""The costs of a whole run: shown before the first job, refused above the limit, and summed up where people look."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from made_up_run import MadeUpRun
from prefect_fixture import prefect_server  # noqa: F401

from rightcall.errors import BackendError
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from tasks.reporting.closing_table import closing_table
from tasks.runs.estimate import check_costs, estimate_run, summary
from tasks.stages.training import train_sft
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef, Kind

COUNTS = {"sft": (1_000, 300_000), "preference": (500, 200_000), "choice": (100, 90_000)}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return Store(tmp_path / "store")


def recipe(*overrides: str) -> Recipe:
    path = Path(__file__).parents[2] / "recipes/qwen3-0.6b/full.yaml"
    return load_recipe(path, ["compute.backend=sagemaker", *overrides])


def stored(store: Store, uri: str, kind: Kind, result: dict[str, Any], *files: str) -> ArtifactRef:
    stage, _, key = uri.partition("/")
    folder = store.workdir(stage, key)
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return store.commit(stage, key, kind, folder, {"result": result, "inputs": {}})


def inputs(store: Store) -> dict[str, ArtifactRef]:
    rows = {f"{kind}_rows": rows for kind, (rows, _) in COUNTS.items()}
    tokens = {f"{kind}_tokens": tokens for kind, (_, tokens) in COUNTS.items()}
    size = {"total_parameters": 600_000_000, "layers": 28}
    return {
        "base": stored(store, "base/b", "model", size, "model/weights"),
        "snapshot": stored(store, "ingest/i", "snapshot", rows | tokens, *(f"{kind}.parquet" for kind in COUNTS)),
    }


def test_the_estimate_has_every_job_and_finished_ones_cost_nothing(store: Store) -> None:
    refs = inputs(store)
    first = estimate_run(recipe(), store, **refs)
    assert list(first) == ["sft", "dpo", "score base", "score sft", "score dpo"]
    assert not any(estimate.cached for estimate in first.values())
    assert all(estimate.usd for estimate in first.values())
    assert "0 already made" in summary(first)

    stored(store, f"sft/{train_sft.key(recipe(), refs, store=store)}", "model", {}, "model/weights")
    second = estimate_run(recipe(), store, **refs)
    assert [label for label, estimate in second.items() if estimate.cached] == ["sft"]
    assert second["sft"].usd == 0.0
    assert second["dpo"] == first["dpo"]
    assert "of 4 jobs one after the other, 1 already made" in summary(second)


def test_mining_is_a_job_and_dpo_counts_with_all_the_pairs_that_it_may_give(store: Store) -> None:
    refs = inputs(store)
    found = estimate_run(recipe("mine.samples=2", "mine.steps=100", "dpo.max_steps=-1"), store, **refs)
    assert list(found) == ["sft", "mine", "dpo", "score base", "score sft", "score dpo"]
    assert found["mine"].usd
    assert "200 answers of 96 tokens to 100 steps of 300 tokens" in found["mine"].basis
    assert (
        found["dpo"].seconds < estimate_run(recipe("mine.samples=8", "dpo.max_steps=-1"), store, **refs)["dpo"].seconds
    )


def test_the_pipeline_shows_the_estimate_and_refuses_before_a_job_exists(store: Store, prefect_server: None) -> None:  # noqa: F811
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    refs = inputs(store)
    whole = sum(estimate.usd or 0.0 for estimate in estimate_run(recipe(), store, **refs).values())

    @flow
    def costs(limit: float) -> None:
        check_costs(store, recipe(f"compute.max_cost_usd={limit}"), **refs)

    costs(whole * 1.01)
    with get_client(sync_client=True) as client:
        (shown,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["cost-estimate"])))
    for part in ("| sft | ml.g5.2xlarge |", "A10G", "score dpo", f"{whole:,.2f} USD"):
        assert part in str(shown.data)
    with pytest.raises(BackendError, match="above compute.max_cost_usd"):
        costs(whole * 0.99)
    assert sorted(path.name for path in store.root.iterdir() if not path.name.startswith(".")) == ["base", "ingest"]


def test_a_local_run_is_not_estimated(store: Store) -> None:
    check_costs(store, load_recipe(None, ["compute.max_cost_usd=0.01"]), **inputs(store))


class BilledRun(MadeUpRun):
    """The made-up run as SageMaker jobs: SFT, DPO and three scorings, each of half an hour."""

    def _commit(self, stage: str, kind: Kind, folder: Path, seconds: float) -> ArtifactRef:
        bill = {"billable_seconds": 1800, "cost_usd": 0.25, "instance": "ml.g5.2xlarge"}
        label = folder.parent.name
        asked = {"model": self.models[label].model_dump(mode="json")} if kind == "scores" else {}
        manifest = {"slice": {}, "inputs": asked, "result": bill if stage in ("sft", "dpo", "score") else {},
                    "created": "2026-11-21T08:00:00+00:00", "seconds": seconds, "versions": {}}  # fmt: skip
        return self.store.commit(stage, f"{stage}{label}", kind, folder, manifest)


@pytest.fixture
def run(store: Store) -> BilledRun:
    return BilledRun(store, n=24)


def test_the_report_and_the_closing_table_sum_up_the_bills(run: BilledRun) -> None:
    page = re.sub(r"<td[^>]*>", "<td>", run.page())
    assert page.count("<td>ml.g5.2xlarge</td><td>1,800</td><td>0.25</td>") == 5
    assert "<td><b>9,000</b></td><td><b>1.25</b></td>" in page
    closing = closing_table(run.recipe, run.scores, run.verdict, store=run.store)
    assert "cost: 1.25 USD, 2 h 30 min billed (sft 0.25 USD, dpo 0.25 USD, score base 0.25 USD" in closing
    assert max(map(len, closing.split("\n"))) <= 100


def test_a_local_run_shows_no_costs(store: Store) -> None:
    run = MadeUpRun(store, n=24)
    assert "billed seconds" not in run.page()
    assert "cost:" not in closing_table(run.recipe, run.scores, run.verdict, store=run.store)


def test_mlflow_has_the_bill_of_every_stage_and_their_sum(run: BilledRun) -> None:
    import mlflow

    from tasks.runs.recorded import recorded_run

    results = {**run.models, **{f"score-{label}": ref for label, ref in run.scores.items()}}
    with recorded_run(run.store, run.recipe, results) as record:
        record.close_with("GO", _report(run))
    client = mlflow.MlflowClient()
    parent = client.get_run(record.id).data
    assert (parent.metrics["cost_usd"], parent.metrics["billable_seconds"]) == (1.25, 9000.0)
    child = client.get_run(parent.tags["rightcall.sft.run"]).data
    assert (child.metrics["cost_usd"], child.tags["rightcall.instance"]) == (0.25, "ml.g5.2xlarge")
    assert "cost_usd" not in client.get_run(parent.tags["rightcall.base.run"]).data.metrics


def _report(run: BilledRun) -> ArtifactRef:
    from tasks.stages.report import write_report

    return write_report.run(run.recipe, store=run.store, **run.refs())
