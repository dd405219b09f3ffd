"""The probe after the last step: a stop that is asked for then ends nothing, so it must not take the probe away either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import TrainerControl, TrainerState

from rightcall.recipe.sections import SftSection
from rightcall.training.callbacks import Metrics
from rightcall.training.probe import Probing


class Interruptible:
    def ask(self, model: Any, before_batch: Callable[[], None]) -> dict[str, float]:
        before_batch()
        return {"probe_n": 1, "probe_right": 1.0}


def test_a_stop_cuts_off_every_probe_but_the_last(tmp_path: Path) -> None:
    section = SftSection(max_steps=4, learning_rate=1e-3, probe_steps=2, keep="best")
    metrics = Metrics(tmp_path / "metrics.jsonl", 1, {})
    probe: Any = Interruptible()
    probing = Probing(probe, SimpleNamespace(model=None), section, metrics, lambda: True)
    found = {}
    for step in (2, 4):
        probing.on_step_end(None, TrainerState(global_step=step, max_steps=4), TrainerControl())  # type: ignore[arg-type]
        found[step] = list(metrics.progress["probes"])
    assert found == {2: [], 4: ["4"]}
