"""Great Expectations judges the flags: a suite per kind of rows and one over its classes, with Data Docs for people."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from data_checks.offline_pages import make_readable_offline
from data_checks.rules import Severity, rules_of
from rightcall.rows.vocabulary import RowKind

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite
    from great_expectations.data_context import FileDataContext

Json = dict[str, Any]
# A class with less than half of its even share is reported: it is too rare to be learned.
SMALLEST_CLASS = 0.5
ACCEPTABLE = "acceptable"


def judge(
    flags: Mapping[RowKind, pl.DataFrame],
    classes: Mapping[RowKind, Mapping[str, int]],
    tolerance: float,
    docs: Path,
    scratch: Path,
) -> Json:
    """Runs the suites; returns {"success", "expectations": [{name, suite, success, severity, unexpected, rows}]}.

    ``flags``: a boolean column per rule and ``acceptable`` (no critical rule broken), a row per row read.
    ``success`` is about the critical rules only. Data Docs go to ``docs/index.html``; ``scratch`` takes GX's own files.
    """
    import great_expectations as gx  # 3 to 8 seconds
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    context = gx.get_context(mode="file", project_root_dir=str(scratch))
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    results: list[Json] = []
    for kind, frame in flags.items():
        if frame.height:
            results += _run(context, kind, frame, _flag_suite(kind, frame, tolerance))
    for kind, counts in classes.items():
        if counts:
            results += _run(
                context, f"{kind}_classes", _class_frame(counts), _class_suite(f"{kind}_classes", len(counts))
            )
    context.build_data_docs()
    shutil.copytree(scratch / "gx" / "uncommitted" / "data_docs" / "local_site", docs, dirs_exist_ok=True)
    make_readable_offline(docs)
    return {
        "success": all(each["success"] for each in results if each["severity"] == "critical"),
        "expectations": results,
    }


def _flag_suite(kind: RowKind, frame: pl.DataFrame, tolerance: float) -> ExpectationSuite:
    from great_expectations import ExpectationSuite
    from great_expectations import expectations as gxe
    from great_expectations.expectations.metadata_types import FailureSeverity

    wanted: list[tuple[str, Severity, str]] = [
        (ACCEPTABLE, "critical", "No critical rule is broken; the recipe's tolerance decides.")
    ]
    wanted += [(rule.flag, rule.severity, f"{rule.question} ({rule.reason})") for rule in rules_of(kind)]
    return ExpectationSuite(
        name=kind,
        expectations=[
            gxe.ExpectColumnValuesToBeInSet(
                column=flag, value_set=[True], mostly=1 - tolerance, severity=FailureSeverity(severity), notes=notes
            )
            for flag, severity, notes in wanted
            if flag in frame.columns
        ],
    )


def _class_suite(name: str, classes: int) -> ExpectationSuite:
    from great_expectations import ExpectationSuite
    from great_expectations import expectations as gxe
    from great_expectations.expectations.metadata_types import FailureSeverity

    least = SMALLEST_CLASS / classes
    return ExpectationSuite(
        name=name,
        expectations=[
            gxe.ExpectTableRowCountToBeBetween(
                min_value=2, severity=FailureSeverity.CRITICAL, notes="More than one class."
            ),
            gxe.ExpectColumnMinToBeBetween(
                column="share",
                min_value=least,
                severity=FailureSeverity.WARNING,
                notes="Every class has half of an even share or more.",
            ),
        ],
    )


def _class_frame(counts: Mapping[str, int]) -> pl.DataFrame:
    total = sum(counts.values())
    return pl.DataFrame(
        {
            "behaviour": list(counts),
            "rows": list(counts.values()),
            "share": [count / total for count in counts.values()],
        }
    )


def _run(context: FileDataContext, name: str, frame: pl.DataFrame, suite: ExpectationSuite) -> list[Json]:
    import great_expectations as gx

    source = context.data_sources.add_or_update_pandas(name)
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    definition = gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add_or_update(suite))
    definition = context.validation_definitions.add_or_update(definition)
    # numpy columns, not frame.to_pandas(): that asks for pyarrow-backed types, which GX counts much more slowly
    table = _pandas(frame)
    result = definition.run(batch_parameters={"dataframe": table}, result_format="SUMMARY")
    return [_plain(name, each, frame.height) for each in result.results]


def _pandas(frame: pl.DataFrame) -> Any:
    import pandas as pd

    return pd.DataFrame({name: frame[name].to_numpy() for name in frame.columns})


def _plain(suite: str, result: Any, rows: int) -> Json:
    """Numbers as Python's own, so that they are JSON; no times and no ids, so that equal data gives equal files."""
    config, found = result.expectation_config, result.result
    column = config.kwargs.get("column")
    unexpected = found.get("unexpected_count")
    observed = found.get("observed_value")
    return {
        "name": f"{suite}.{column}" if column else f"{suite}.{config.type}",
        "suite": suite,
        "success": bool(result.success),
        "severity": str(getattr(config.severity, "value", config.severity)),
        "unexpected": int(unexpected) if unexpected is not None else int(not result.success),
        "rows": rows,
        "observed": None if observed is None else round(float(observed), 6),
        "notes": str(config.notes or ""),
    }
