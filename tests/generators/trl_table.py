"""After an upgrade of TRL, `python tests/generators/trl_table.py` writes training_image/rightcall/recipe/trl_fields.json from it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[2] / "training_image" / "rightcall" / "recipe" / "trl_fields.json"


def installed_table() -> dict[str, Any]:
    """Field name → type as text for SFTConfig and DPOConfig, and the names that TRL and transformers choose from."""
    from transformers.trainer_utils import SchedulerType
    from trl import DPOConfig, SFTConfig

    def fields(config: type) -> dict[str, str]:
        return {
            field.name: field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
            for field in sorted(dataclasses.fields(config), key=lambda field: field.name)
            if field.init
        }

    preference = next(field for field in dataclasses.fields(DPOConfig) if field.name == "loss_type")
    supervised = next(field for field in dataclasses.fields(SFTConfig) if field.name == "loss_type")
    listed = preference.metadata["help"].split("If multiple")[0]
    return {
        "SFTConfig": fields(SFTConfig),
        "DPOConfig": fields(DPOConfig),
        "preference_losses": [ast.literal_eval(quoted) for quoted in re.findall(r"'\w+'", listed)],
        "supervised_losses": supervised.metadata["choices"],
        "schedulers": [scheduler.value for scheduler in SchedulerType],
    }


if __name__ == "__main__":
    TABLE.write_text(json.dumps(installed_table(), indent=1) + "\n")
