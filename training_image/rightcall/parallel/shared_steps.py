"""Mixed in before a TRL trainer: many processes take the steps that one would take, and log what it would log.

transformers and TRL split data and average over processes in ways whose result depends on the number of processes:
rows are repeated at an epoch's end, processes with few rows count as much as those with many, and each logged value
costs a collective. Here each process computes its pieces (`global_batch.py`) for itself, and the logged values are put
together once a step.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import DataLoader, Sampler, SequentialSampler

from rightcall.errors import RecipeError
from rightcall.likelihood.answer_head import Computed
from rightcall.parallel import processes
from rightcall.parallel.global_batch import Order, Pieces, Split, Together, loader
from rightcall.parallel.processes import memory_bytes
from rightcall.recipe.sections import TrainingSection


class SharedSteps:
    """`share_steps` switches it on; with one process everything stays as TRL has it."""

    # What the Trainer that this is mixed into has; declared for the type checker.
    args: Any
    accelerator: Any
    train_dataset: Any
    data_collator: Any
    _metrics: Any
    _total_train_tokens: int

    averages_pairs = (
        False  # the loss is a mean over the rows of a batch, not a sum that is divided by the step's tokens
    )
    split: Split | None = None
    section: TrainingSection
    groups: Sequence[Hashable] | None = None  # of the rows, each group in batches of its own; None = any rows together
    group_rows = 1  # of the recipe's batch
    computed: Computed | None = None
    _tokens_of_batch: tuple[float, torch.Tensor | None] = (1.0, None)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        if self.args.fsdp:
            processes.use_fsdp(self.accelerator, self.args.fsdp_plugin_args)
            self.is_fsdp_enabled = True

    def share_steps(self, split: Split, section: TrainingSection) -> None:
        self.split, self.section = split, section
        self._parts: list[float] = []  # of the recipe's batches that this process has done since the last log
        self._tokens_known: int | None = None  # of all processes, at the last log

    def get_train_dataloader(self) -> DataLoader[Any]:
        if self.split is None:
            return super().get_train_dataloader()  # type: ignore[misc]
        pieces = Pieces(self.train_dataset, self.data_collator)
        order = Order(
            self._sampler(), self.section.per_device_train_batch_size, self.section.gradient_accumulation_steps,
            self.split, processes.world().rank, drop_last=self.args.dataloader_drop_last,
        )  # fmt: skip
        return loader(
            pieces, order, num_workers=self.args.dataloader_num_workers, pin_memory=self.args.dataloader_pin_memory
        )

    def _get_train_sampler(self, *args: Any) -> Any:
        """transformers' own, which accelerate then replaces by `_sampler`'s, but for groups."""
        if self.groups is None or self.args.train_sampling_strategy != "random":
            return super()._get_train_sampler(*args)  # type: ignore[misc]
        return self._sampler()

    def _sampler(self) -> Sampler[int]:
        """The order that accelerate gives to one process."""
        strategy = self.args.train_sampling_strategy
        if strategy == "sequential":
            return SequentialSampler(self.train_dataset)
        if strategy != "random":
            raise RecipeError(
                f"trl.train_sampling_strategy {strategy!r} orders rows by the batches of one process; leave it out, "
                "or train with one process"
            )
        order = SeedableRandomSampler(self.train_dataset, generator=torch.Generator(), data_seed=self.args.data_seed)
        return Together(order, self.groups, self.group_rows) if self.groups is not None else order

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        if self.split is None:
            return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        share, part = float(inputs.pop("share")), float(inputs.pop("part"))
        self._tokens_of_batch = part, inputs.pop("chosen_tokens", None)
        tokens = self._total_train_tokens
        if self._tokens_known is None:
            self._tokens_known = tokens  # those of an earlier run that this one goes on after
        stock = self.accelerator.gather, self.accelerator.gather_for_metrics
        self.accelerator.gather = self.accelerator.gather_for_metrics = _kept
        try:
            loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        finally:
            self.accelerator.gather, self.accelerator.gather_for_metrics = stock
        self._parts.append(part if share else 0.0)
        if not share:
            self._total_train_tokens = tokens
        if self.averages_pairs:  # what follows divides by the accumulation, and averages over processes
            loss = loss * (share * self.split.processes * self.current_gradient_accumulation_steps)  # type: ignore[attr-defined]
        return loss

    def mean_of_batch(self, values: torch.Tensor) -> torch.Tensor:
        """This piece's part of the mean over the answer tokens of the recipe's batch, before pieces are averaged."""
        part, tokens = self._tokens_of_batch
        return values.mean() if tokens is None else values.sum() / (tokens * part)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            new = self.computed.take() if self.computed else 0
            logs["tokens_computed"] = processes.reduced([new])[0]
        if self.split is not None and "loss" in logs:
            self._put_together()
            logs["memory_bytes"] = processes.reduced([memory_bytes()], largest=True)[0]
        super().log(logs, start_time)  # type: ignore[misc]

    def _put_together(self) -> None:
        """Replaces this process's metrics by those of all, weighted as one process would weigh its batches."""
        own = {name: values for name, values in self._metrics["train"].items() if name != "num_tokens"}
        sums = [sum(part * value for part, value in zip(self._parts, values, strict=True)) for values in own.values()]
        known = self._tokens_known or 0
        new_tokens = self._total_train_tokens - known
        *totals, parts, tokens = processes.reduced([*sums, sum(self._parts), new_tokens])
        self._tokens_known = self._total_train_tokens = known + int(tokens)
        self._metrics["train"].update({name: [total / parts] for name, total in zip(own, totals, strict=True)})
        self._metrics["train"]["num_tokens"] = [self._tokens_known]
        self._parts = []


def _kept(value: torch.Tensor) -> torch.Tensor:
    return value
