"""The registered model's code: MLflow runs this file wherever somebody loads the model, so it imports rightcall only.

    model = mlflow.pyfunc.load_model("models:/rightcall@champion")
    model.predict([{"messages": [{"role": "user", "content": "Weather in Rome?"}], "tools": [...]}])
    → [{"role": "assistant", "content": "", "tool_calls": [{"id": "call_0", "type": "function", "function": {...}}]}]

MLflow holds this file and ``model_config``: where the weights are and what their sha256 must be, never the weights:
{"weights_uri": "dpo/1a2b…/model", "store": "/home/me/.rightcall/store", "files": {"model.safetensors": sha256, …},
 "chat_template": name or None, "max_new_tokens": 512, "grammar": true}

What a call holds is decoded under the offered tools' JSON Schemas, so that every call which is written to its end is one
that its tool accepts; `load_model(…, model_config={"grammar": False})` leaves it free. A chat may also have OpenAI's
"tool_choice": "auto", "required", "none" or {"type": "function", "function": {"name": …}}; "functions" and "function_call"
are their older names.

Messages and tools are brought into the form of the rows that were trained, by the same functions: whatever dialect
ingestion reads, and the answers of this model itself, may be sent.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel, PythonModelContext

try:
    from rightcall.errors import DataError, RecipeError, RegistryError
    from rightcall.records.reading import to_request
    from rightcall.rows.canonical import canonical_messages
    from rightcall.rows.tool_schemas import normalise_tools
    from rightcall.toolcalls.template_check import load_template
    from rightcall.toolcalls.verifier import parse
except ImportError as err:  # in a copy that is older, or newer, than the library
    raise ImportError(
        f"this model was registered by another rightcall than the one that loads it ({err}); run its recipe again to "
        "register it anew (python -m flows.pipeline RECIPE), or use the rightcall of its tag rightcall.git_commit"
    ) from err

NOTHING = "\0"  # stands for an empty answer, which canonical_messages refuses

logger = logging.getLogger(__name__)

# A tool's JSON Schema is free-form: there is no more specific type hint than `Any`, which MLflow warns about, past any
# filter, when the class is made: recorded = not shown.
with warnings.catch_warnings(record=True):

    class ServedModel(PythonModel):
        """Answers chats with tools greedily, through the same template and parser as training and evaluation."""

        def load_context(self, context: PythonModelContext) -> None:
            """Finds the registered files, proves that they are the registered ones, and loads them.

            Raises:
                RegistryError: the weights are not where they were registered, or are not the registered ones.
                RecipeError: the calls that the model's chat template writes cannot be read back.
            """
            config = context.model_config
            folder = find_weights(config["weights_uri"], config["store"], config["files"])
            check_files(folder, config["files"])
            self._template = load_template(folder, config["chat_template"])
            from transformers import AutoModelForCausalLM
            from transformers.utils import logging

            logging.disable_progress_bar()

            # float32: the precision in which near-ties were scored
            self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
            self._model.to(_device())
            self._max_new_tokens = int(config["max_new_tokens"])
            vocabulary = self._model.get_output_embeddings().weight.shape[0]
            self._grammar = find_grammar(self._template, vocabulary) if config.get("grammar", True) else None

        def predict(  # type: ignore[override]  # the type hint is what MLflow reads as signature
            self, model_input: list[dict[str, Any]], params: dict[str, Any] | None = None
        ) -> list[dict[str, Any]]:
            """One assistant message per chat, without thoughts; a call that cannot be read comes back as it was written.

            No control token is in it, so that it may be sent back as history.

            Raises:
                DataError: a chat has no messages, ingestion would refuse its messages or tools, or its tool_choice
                    cannot be met.
            """
            return [self._answer(chat) for chat in model_input]

        def _answer(self, chat: dict[str, Any]) -> dict[str, Any]:
            messages = chat.get("messages")
            if not messages:
                raise DataError(f'a chat needs "messages", got {str(chat)[:200]!r}; see the top of served_model.py')
            asked = to_request(chat)
            tools = normalise_tools(asked.get("tools"))
            written = self._write(history(asked["messages"]), tools, self._choice(chat))
            parsed = parse(written, self._template.dialect, tools)
            calls = [
                {"id": f"call_{number}", "type": "function", "function": call}
                for number, call in enumerate(parsed.calls)
            ]
            said = "" if calls else self._template.without_control_tokens(parsed.said).strip()
            return {"role": "assistant", "content": said, "tool_calls": calls}

        def _choice(self, chat: dict[str, Any]) -> str:
            choice = chat.get("tool_choice") or chat.get("function_call") or "auto"
            if isinstance(choice, dict):
                choice = choice.get("function", choice).get("name")
            if self._grammar is None and choice != "auto":
                raise DataError(
                    f"tool_choice {choice!r} can only be held to by a model that is loaded with its grammar; "
                    "leave it out, or load the model without model_config={'grammar': False}"
                )
            return str(choice)

        def _write(
            self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, choice: str = "auto"
        ) -> str:
            import torch

            grammar = self._grammar
            constraint = None if grammar is None else grammar.constraint(tools, choice)
            prompt = self._template.encode_prompt(messages, tools)
            ids = torch.tensor([prompt], device=self._model.device)
            with torch.inference_mode():
                written = self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=self._max_new_tokens,
                    eos_token_id=self._template.eos_ids,
                    pad_token_id=self._template.pad_id,
                    logits_processor=None if constraint is None else [held_to(constraint, len(prompt))],
                )
            answer = written[0, len(prompt) :].tolist()
            end = next((place for place, token in enumerate(answer) if token in self._template.eos_ids), len(answer))
            if grammar is not None:
                return self._template.decode(grammar.close(answer[:end], tools, self._max_new_tokens, choice))
            return self._template.decode(answer[:end])


def history(messages: Any) -> list[dict[str, Any]]:
    """The messages as rows hold them; an assistant that said nothing, as no row has it, is let pass: models do.

    Raises:
        DataError: ingestion would refuse a message.
    """
    if isinstance(messages, list):
        messages = [{**message, "content": NOTHING} if _says_nothing(message) else message for message in messages]
    found = canonical_messages(messages)
    return [{**message, "content": ""} if message["content"] == NOTHING else message for message in found]


def _says_nothing(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return False
    return message.get("content") in (None, "", []) and not (message.get("tool_calls") or message.get("function_call"))


def find_grammar(template: Any, vocabulary: int) -> Any:
    """None, with a warning, for a chat template whose way of writing calls the grammar does not know.

    Raises:
        RegistryError: its engine is not installed.
    """
    try:
        from rightcall.decoding.grammar import Grammar
    except ImportError as err:
        raise RegistryError(
            f"the grammar that calls are held to cannot be loaded ({err}): pip install llguidance, or load the model "
            "with model_config={'grammar': False}"
        ) from err
    try:
        return Grammar(template, vocabulary)
    except RecipeError as err:
        logger.warning("calls are written freely: %s", err)
        return None


def held_to(constraint: Any, start: int) -> Callable[[Any, Any], Any]:
    """For `generate` with one chat: leaves only the tokens that may follow what was written since `start`."""
    import torch

    read = start

    def processor(ids: Any, scores: Any) -> Any:
        nonlocal read
        for token in ids[0, read:].tolist():
            constraint.accept(token)
        read = ids.shape[1]
        allowed = torch.from_numpy(constraint.mask()).to(scores.device)
        return scores.masked_fill(~allowed, float("-inf"))

    return processor


def find_weights(uri: str, registered_store: str, files: dict[str, str]) -> Path:
    """Folder of the weights in the store that the environment names, else in the one they were registered from.

    Of a store in S3 it is the copy on this machine, downloaded where it is not there yet.

    Raises:
        RegistryError: neither has them.
    """
    stores = [registered_store]
    if home := os.environ.get("RIGHTCALL_HOME"):
        stores.insert(0, str(Path(home).expanduser() / "store"))
    if store := os.environ.get("RIGHTCALL_STORE"):
        stores.insert(0, store)
    for root in stores:
        folder = mirror_of(root) / uri if root.startswith("s3://") else Path(root).expanduser().absolute() / uri
        if folder.is_dir():
            return folder
    for root in stores:
        if root.startswith("s3://") and download(root, uri, files, mirror_of(root) / uri):
            return mirror_of(root) / uri
    raise RegistryError(
        f"the weights {uri!r} of this model are in none of {stores!r}; the store was moved or cleaned: "
        "set RIGHTCALL_STORE to the folder that has them now, or run the recipe again"
    )


def mirror_of(store: str) -> Path:
    """Where a store in S3 keeps its copies on this machine; as tasks/store/s3_store.py has it."""
    home = os.environ.get("RIGHTCALL_HOME") or Path.home() / ".cache" / "rightcall"
    return Path(os.environ.get("RIGHTCALL_MIRROR") or Path(home) / "mirror").expanduser() / store.removeprefix("s3://")


def download(store: str, uri: str, files: dict[str, str], target: Path) -> bool:
    """Fetches the registered files into ``target``, which is there whole or not at all; False = S3 has none of them.

    Raises:
        RegistryError: S3 refuses, or boto3 is not installed.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as err:
        raise RegistryError(f"the weights lie in {store!r}; install boto3 to load them: pip install boto3") from err
    bucket, _, prefix = store.removeprefix("s3://").strip("/").partition("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
    try:
        client = boto3.client("s3", region_name=os.environ.get("AWS_REGION") or None)
        for name in files:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, f"{prefix}/{uri}/{name}".lstrip("/"), str(work / name))
        if not target.exists():  # another process may have been faster
            work.rename(target)
    except ClientError as err:
        if err.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return False
        raise RegistryError(
            f"S3 refused {store!r}: {err}; check that your AWS credentials may read this bucket"
        ) from err
    except BotoCoreError as err:
        raise RegistryError(f"{store!r} could not be read: {err}; check the AWS credentials and the network") from err
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def check_files(folder: Path, expected: dict[str, str]) -> None:
    """Compares the sha256 of every file with the registered one.

    Raises:
        RegistryError: a file is missing or is not the registered one.
    """
    for name, sha256 in expected.items():
        path = folder / name
        if not path.is_file():
            raise RegistryError(f"{str(path)!r} of the registered model is gone; run the recipe again to restore it")
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != sha256:
            raise RegistryError(
                f"{str(path)!r} was changed after it was registered: sha256 {found!r} instead of {sha256!r}; "
                "delete its folder and run the recipe again, or register the new weights"
            )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


mlflow.models.set_model(ServedModel())
