"""Costs of one job: the estimate's arithmetic, the limit that refuses, and the bill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cost_table
import pytest

from rightcall.errors import BackendError
from rightcall.job.stage_table import STAGES
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from tasks.costs.bills import bill_of, manifest_fields, read_bills, sentence, total
from tasks.costs.estimates import SPOT_SAVING, Estimate, clock, estimate_job, require_affordable, work_of
from tasks.costs.prices import PRICES, price_of
from tasks.costs.throughput import (
    PEAK_FLOPS,
    START_SECONDS,
    Work,
    duration,
    flops_per_token,
    hardware,
    trained_tokens,
)
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef, Kind

ROOT = Path(__file__).parents[2]
FULL = ROOT / "recipes/qwen3-1.7b/full.yaml"


def on(instance_type: str, *overrides: str, path: Path = FULL) -> Recipe:
    kind = [f"compute.sagemaker.instance_type={instance_type}", "compute.sagemaker.score_instance_type=null"]
    return load_recipe(path, ["compute.backend=sagemaker", *kind, *overrides])


def stored(
    store: Store, stage: str, key: str, kind: Kind, result: dict[str, Any], **inputs: ArtifactRef
) -> ArtifactRef:
    folder = store.workdir(stage, key)
    (folder / "content").write_text(key)
    named = {name: ref.model_dump(mode="json") for name, ref in inputs.items()}
    manifest = {"result": result, "inputs": named, "slice": {}, "created": "2026-11-21T08:00:00+00:00", "seconds": 1.0}
    return store.commit(stage, key, kind, folder, manifest)


# --- time


def test_full_fine_tuning_takes_six_operations_per_parameter_and_token() -> None:
    """2 forward + 2 + 2 backward; with activation checkpointing the forward pass twice: 8."""
    work = Work(parameters=10)
    section = load_recipe(FULL, ["sft.activation_checkpointing=false"]).sft
    assert flops_per_token(section, work) == 6 * 10
    assert flops_per_token(load_recipe(FULL).sft, work) == 8 * 10


@pytest.mark.parametrize(
    ("overrides", "per_parameter"),
    [
        (["sft.method=lora"], 4),  # no gradients of weights
        (["sft.method=qlora"], 4 * 1.4),
        (["sft.method=spectrum", "sft.spectrum_top_fraction=0.5"], 5),
        (["sft.frozen_layers=14"], 4),  # half of 28: both gradients for half of the layers
        (["sft.frozen_layers=14", "sft.activation_checkpointing=true"], 5),
    ],
)
def test_what_is_frozen_is_not_counted(overrides: list[str], per_parameter: float) -> None:
    section = load_recipe(FULL, ["sft.activation_checkpointing=false", *overrides]).sft
    assert flops_per_token(section, Work(parameters=1, layers=28)) == pytest.approx(per_parameter)


def test_epochs_count_all_tokens_and_steps_count_their_rows() -> None:
    """1,000 rows of 300 tokens. 10 epochs: 3,000,000. 5 steps × 64 rows × 300 = 96,000; packed to 2,048: 655,360."""
    work = Work(tokens=300_000, rows=1_000)
    assert trained_tokens(load_recipe(FULL).sft, work) == 3_000_000
    assert trained_tokens(load_recipe(FULL, ["sft.max_steps=5"]).sft, work) == 5 * 64 * 2048
    assert trained_tokens(load_recipe(FULL, ["sft.max_steps=5", "sft.packing=false"]).sft, work) == 96_000
    assert trained_tokens(load_recipe(FULL).dpo, work) == 2 * 3_000_000, "a pair has two sides"


def test_an_estimate_is_price_times_time() -> None:
    """1e9 parameters × 8 × 10 epochs × 1e6 tokens = 8e16; one A10G at 70e12 × 40%: 2,857 s, and 300 s to start."""
    recipe = on("ml.g5.2xlarge")
    found = estimate_job("sft", recipe, Work(tokens=1_000_000, rows=1_000, parameters=10**9, layers=28))
    seconds = 8e16 / (PEAK_FLOPS["A10G"] * STAGES["sft"].utilisation) + START_SECONDS
    assert found.seconds == pytest.approx(seconds) == pytest.approx(3157, abs=1)
    price = price_of("ml.g5.2xlarge")
    assert price is not None
    assert found.usd == pytest.approx(price.usd_per_hour * seconds / 3600)
    for part in ("10,000,000 tokens", "A10G", "40% (assumed)", f"USD an hour in {price.region} of {price.date}"):
        assert part in found.basis


def test_the_reference_is_paid_once_per_pair_and_not_per_epoch() -> None:
    work = Work(tokens=10**6, rows=1_000, parameters=10**9)
    with_reference, without = (
        estimate_job("dpo", on("ml.g5.2xlarge", f"dpo.reference_free={free}"), work).seconds
        for free in ("false", "true")
    )
    per_second = PEAK_FLOPS["A10G"] * STAGES["dpo"].utilisation
    assert with_reference - without == pytest.approx(2 * 10**6 * 2 * 10**9 / per_second)


def test_more_gpus_are_faster_but_not_as_much_as_there_are() -> None:
    work = Work(tokens=10**8, rows=10**5, parameters=10**9)
    one, four = (
        estimate_job("sft", on(kind), work).seconds - START_SECONDS for kind in ("ml.g5.xlarge", "ml.g5.12xlarge")
    )
    assert 3 < one / four < 4
    hosts = estimate_job("sft", on("ml.g5.xlarge", "compute.sagemaker.instance_count=4"), work)
    assert hosts.instance == "4 × ml.g5.xlarge"
    assert hosts.seconds - START_SECONDS > four


def test_no_more_processes_count_than_a_step_has_rows() -> None:
    work = Work(tokens=10**8, rows=10**5, parameters=10**9)
    rows = ["sft.per_device_train_batch_size=1", "sft.gradient_accumulation_steps=1"]
    one, four = (estimate_job("sft", on(kind, *rows), work).seconds for kind in ("ml.g5.xlarge", "ml.g5.12xlarge"))
    assert one == four


def test_scoring_takes_one_gpu_of_its_own_instance_type() -> None:
    work = Work(tokens=10**6, rows=1_000, parameters=10**9)
    recipe = on("ml.p4d.24xlarge", "compute.sagemaker.score_instance_type=ml.g5.2xlarge")
    found = estimate_job("score", recipe, work)
    assert found.instance == "ml.g5.2xlarge"
    one, eight = (estimate_job("score", on(kind), work).seconds for kind in ("ml.g5.xlarge", "ml.g5.48xlarge"))
    assert one == eight


def test_a_spot_job_counts_with_the_assumed_saving() -> None:
    work = Work(tokens=10**6, rows=1_000, parameters=10**9)
    spot = ["compute.sagemaker.spot=true", "compute.sagemaker.max_wait_minutes=3000"]
    full, cheap = (estimate_job("sft", on("ml.g5.2xlarge", *more), work) for more in ([], spot))
    assert full.usd is not None
    assert cheap.usd == pytest.approx(full.usd * (1 - SPOT_SAVING))
    assert "spot saves 50% (assumed)" in cheap.basis


def test_a_training_plan_was_paid_for_before() -> None:
    plan = "compute.sagemaker.training_plan=arn:aws:sagemaker:us-east-1:111122223333:training-plan/mine"
    found = estimate_job("sft", on("ml.p5.48xlarge", plan), Work(10**6, 1_000, 10**9))
    assert (found.usd, "paid with the training plan" in found.basis) == (0.0, True)


@pytest.mark.parametrize(
    ("instance_type", "work", "why"),
    [
        ("ml.trn1.32xlarge", Work(10**6, 1_000, 10**9), "speed not known"),
        ("ml.p3.2xlarge", Work(10**6, 1_000, 10**9), "speed not known"),
        ("ml.g5.2xlarge", Work(None, None, 10**9), "tokens or model size not known"),
        ("ml.g5.2xlarge", Work(10**6, 1_000), "tokens or model size not known"),
    ],
)
def test_what_cannot_be_timed_counts_with_the_longest_run(instance_type: str, work: Work, why: str) -> None:
    found = estimate_job("sft", on(instance_type, "compute.sagemaker.max_runtime_minutes=60"), work)
    assert found.seconds == 3600
    assert f"{why}: counted with max_runtime_minutes 60" in found.basis


def test_an_estimate_beyond_the_longest_run_says_so() -> None:
    recipe = on("ml.g5.2xlarge", "compute.sagemaker.max_runtime_minutes=10")
    found = estimate_job("sft", recipe, Work(10**8, 10**5, 10**9))
    assert found.seconds > 600
    assert "longer than max_runtime_minutes 10, which would end it: raise that" in found.basis


def test_every_gpu_type_with_a_speed_is_faster_than_a_cpu() -> None:
    recipe = load_recipe(FULL)
    work = Work(tokens=10**8, rows=10**5, parameters=10**9, layers=28)
    seconds = {kind: duration("sft", recipe, work, kind, 1) for kind in json.loads(PRICES.read_text())["prices"]}
    gpus = [kind for kind in seconds if (found := hardware(kind)) is not None and found.is_gpu]
    slow = duration("sft", recipe, work, "ml.m5.24xlarge", 1)
    assert slow is not None
    assert len(gpus) > 20
    faster = [kind for kind in gpus if (found := seconds[kind]) is not None and found.seconds < slow.seconds]
    assert faster == gpus


def test_the_table_of_the_recipes_readme_is_what_the_estimates_say() -> None:
    assert cost_table.in_readme() == cost_table.table(), (
        "run `python tests/generators/cost_table.py --write` and read the diff"
    )


# --- the limit


def _estimate(usd: float | None, *, cached: bool = False) -> Estimate:
    return Estimate("sft", "ml.g5.2xlarge", 3600.0, usd, "made up", cached=cached)


def test_a_run_above_its_limit_is_refused_with_every_part() -> None:
    recipe = on("ml.g5.2xlarge", "compute.max_cost_usd=5")
    require_affordable(recipe, {"sft": _estimate(2.5), "dpo": _estimate(2.5)})
    with pytest.raises(BackendError) as caught:
        require_affordable(recipe, {"sft": _estimate(2.5), "dpo": _estimate(2.51)})
    text = str(caught.value)
    assert "the estimate of 5.01 USD is above compute.max_cost_usd 5; nothing was started" in text
    assert "sft: about 2.50 USD, 1 h 00 min on ml.g5.2xlarge: made up" in text


def test_what_is_in_the_store_costs_nothing() -> None:
    recipe = on("ml.g5.2xlarge", "compute.max_cost_usd=5")
    require_affordable(recipe, {"sft": _estimate(100, cached=True), "dpo": _estimate(4)})


def test_a_type_without_a_price_passes_without_a_limit_and_is_refused_with_one() -> None:
    work = Work(10**6, 1_000, 10**9)
    recipe = on("ml.g5.96xlarge")
    found = estimate_job("sft", recipe, work)
    assert found.usd is None
    assert "no price for ml.g5.96xlarge in tasks/costs/prices.json" in found.basis
    require_affordable(recipe, {"sft": found})
    with pytest.raises(BackendError, match="has no price in tasks/costs/prices.json, so the cost cannot be checked"):
        require_affordable(on("ml.g5.96xlarge", "compute.max_cost_usd=1000"), {"sft": found})


def test_local_runs_are_never_refused() -> None:
    require_affordable(load_recipe(FULL, ["compute.max_cost_usd=1"]), {"sft": _estimate(100)})


# --- the bill


def test_the_bill_is_the_billable_time_of_every_instance() -> None:
    """2 hosts × 1,800 s = one hour of ml.p4d.24xlarge."""
    description = {
        "ResourceConfig": {"InstanceType": "ml.p4d.24xlarge", "InstanceCount": 2}, "BillableTimeInSeconds": 1800,
        "TrainingTimeInSeconds": 4000,
    }  # fmt: skip
    recipe = on("ml.p4d.24xlarge")
    found = bill_of(description, recipe)
    price = price_of("ml.p4d.24xlarge")
    assert price is not None
    assert (found.billable_seconds, found.usd) == (3600, round(price.usd_per_hour, 4))
    assert manifest_fields([description], recipe) == {
        "billable_seconds": 3600, "cost_usd": found.usd, "instance": "2 × ml.p4d.24xlarge", "attempts": 1,
    }  # fmt: skip


def test_a_bill_without_a_price_has_no_dollars() -> None:
    description = {"ResourceConfig": {"InstanceType": "ml.new.xlarge", "InstanceCount": 1}, "BillableTimeInSeconds": 60}
    expected = {"billable_seconds": 60, "instance": "ml.new.xlarge", "attempts": 1}
    assert manifest_fields([description], load_recipe(FULL)) == expected


def test_a_job_that_ended_before_it_started_is_billed_nothing() -> None:
    description = {"ResourceConfig": {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1}}
    assert bill_of(description, load_recipe(FULL)).usd == 0.0


def test_work_is_read_from_the_manifests_of_the_inputs(tmp_path: Path) -> None:
    """DPO starts from the SFT model, whose size is its base model's."""
    store = Store(tmp_path)
    base = stored(store, "base", "b", "model", {"total_parameters": 596, "layers": 28})
    rows = {
        "sft_rows": 3,
        "sft_tokens": 30,
        "preference_rows": 2,
        "preference_tokens": 50,
        "choice_rows": 1,
        "choice_tokens": 9,
    }
    snapshot = stored(store, "ingest", "i", "snapshot", rows)
    model = stored(store, "sft", "s", "model", {"total_parameters": 600}, base=base, snapshot=snapshot)
    candidate = stored(store, "dpo", "d", "model", {}, model=model, snapshot=snapshot)
    assert work_of("sft", store, model=base, snapshot=snapshot) == Work(30, 3, 596, 28)
    assert work_of("dpo", store, model=model, snapshot=snapshot) == Work(50, 2, 596, 28)
    assert work_of("score", store, model=candidate, snapshot=snapshot) == Work(9, 1, 596, 28)


def test_a_snapshot_says_how_many_tokens_its_rows_have(tmp_path: Path) -> None:
    from ingest_examples import base_in, ingest_recipe, write_tiny_sources

    from rightcall.rows.snapshots import read_snapshot
    from tasks.stages.ingest import ingest_snapshot

    store = Store(tmp_path / "store")
    base = base_in(store, tmp_path)
    paths = {"choice": write_tiny_sources(tmp_path / "rows")["choice"]}
    snapshot = ingest_snapshot.run(ingest_recipe(paths), store=store, base=base)
    rows = read_snapshot(store.path(snapshot), "choice")
    work = work_of("score", store, model=base, snapshot=snapshot)
    assert (work.rows, work.tokens) == (len(rows), sum(row["n_tokens"] for row in rows))
    assert work.tokens


def test_bills_add_up_and_local_results_have_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    base = stored(store, "base", "b", "model", {"total_parameters": 1})
    sft = stored(store, "sft", "s", "model", {"billable_seconds": 3600, "cost_usd": 1.5, "instance": "ml.g5.2xlarge"})
    dpo = stored(store, "dpo", "d", "model", {"billable_seconds": 1800, "cost_usd": 0.75, "instance": "ml.g5.2xlarge"})
    bills = read_bills(store, {"base": base, "sft": sft, "dpo": dpo, "again": dpo})
    assert [bill.label for bill in bills] == ["sft", "dpo"]
    assert total(bills) == {"billable_seconds": 5400.0, "cost_usd": 2.25}
    assert sentence(bills) == "cost: 2.25 USD, 1 h 30 min billed (sft 1.50 USD, dpo 0.75 USD)"
    assert (total([]), sentence([])) == ({}, "")
    unknown = stored(store, "score", "x", "scores", {"billable_seconds": 60, "instance": "ml.new.xlarge"})
    assert total(read_bills(store, {"sft": sft, "score": unknown})) == {"billable_seconds": 3660.0}


def test_times_are_read_by_people() -> None:
    assert [clock(seconds) for seconds in (0, 61, 3600, 5399)] == ["1 min", "2 min", "1 h 00 min", "1 h 30 min"]


def test_a_snapshot_of_steps_alone_has_an_estimate_that_grows_with_them() -> None:
    """323 steps grow in six batches, free and under the grammar; their conversations are read once at most each."""
    recipe = load_recipe()
    machine = "ml.g5.2xlarge"
    few, many = (
        duration("score", recipe, Work(0, 0, 135_000_000, 30, steps, steps * 1_700), machine, 1) for steps in (64, 323)
    )
    assert few is not None
    assert many is not None
    assert "323 written answers" in many.basis
    assert few.seconds < many.seconds < few.seconds + 120
