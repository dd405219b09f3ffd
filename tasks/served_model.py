"""The registered model's code: MLflow runs this file wherever somebody loads the model, so it imports rightcall only.

    model = mlflow.pyfunc.load_model("models:/rightcall@champion")
    model.predict([{"messages": [{"role": "user", "content": "Weather in Rome?"}], "tools": [...]}])
    → [{"role": "assistant", "content": "", "tool_calls": [{"id": "call_0", "type": "function", "function": {...}}]}]

MLflow holds this file and ``model_config``: where the weights are and what their sha256 must be, never the weights:
{"weights_uri": "dpo/1a2b…/model", "store": "/home/me/.rightcall/store", "files": {"model.safetensors": sha256, …},
 "chat_template": name or None, "max_new_tokens": 512}
"""

import hashlib
import os
import warnings
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel, PythonModelContext

from rightcall.chat import ChatTemplate
from rightcall.errors import DataError, RegistryError
from rightcall.toolcalls import parse

# A tool's JSON Schema is free-form: there is no more specific type hint than `Any`, which MLflow warns about, past any
# filter, when the class is made: recorded = not shown.
with warnings.catch_warnings(record=True):

    class ServedModel(PythonModel):
        """Answers chats with tools greedily, through the same template and parser as training and evaluation."""

        def load_context(self, context: PythonModelContext) -> None:
            """Raises:
            RegistryError: the weights are not where they were registered, or are not the registered ones.
            """
            config = context.model_config
            folder = find_weights(config["weights_uri"], config["store"])
            check_files(folder, config["files"])
            from transformers import AutoModelForCausalLM
            from transformers.utils import logging

            logging.disable_progress_bar()

            # float32: the precision in which near-ties were scored
            self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
            self._model.to(_device())
            self._template = ChatTemplate.load(folder, config["chat_template"])
            self._max_new_tokens = int(config["max_new_tokens"])

        def predict(  # type: ignore[override]  # the type hint is what MLflow reads as signature
            self, model_input: list[dict[str, Any]], params: dict[str, Any] | None = None
        ) -> list[dict[str, Any]]:
            """One assistant message per chat; a call that cannot be read comes back as the text that was written.

            Raises:
                DataError: a chat has no messages.
            """
            return [self._answer(chat) for chat in model_input]

        def _answer(self, chat: dict[str, Any]) -> dict[str, Any]:
            messages = chat.get("messages")
            if not isinstance(messages, list) or not messages:
                raise DataError(f'a chat needs "messages", got {str(chat)[:200]!r}; see the top of served_model.py')
            parsed = parse(self._write(messages, chat.get("tools")))
            calls = [
                {"id": f"call_{number}", "type": "function", "function": call}
                for number, call in enumerate(parsed.calls)
            ]
            return {"role": "assistant", "content": "" if calls else parsed.text.strip(), "tool_calls": calls}

        def _write(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
            import torch

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
                )
            answer = written[0, len(prompt) :].tolist()
            end = next((place for place, token in enumerate(answer) if token in self._template.eos_ids), len(answer))
            return self._template.decode(answer[:end])


def find_weights(uri: str, registered_store: str) -> Path:
    """Folder of the weights in the store that the environment names, else in the one they were registered from.

    Raises:
        RegistryError: neither has them.
    """
    stores = [registered_store]
    if home := os.environ.get("RIGHTCALL_HOME"):
        stores.insert(0, str(Path(home).expanduser() / "store"))
    if store := os.environ.get("RIGHTCALL_STORE"):
        stores.insert(0, store)
    for root in stores:
        if (folder := Path(root).expanduser().absolute() / uri).is_dir():
            return folder
    raise RegistryError(
        f"the weights {uri!r} of this model are in none of {stores!r}; the store was moved or cleaned: "
        "set RIGHTCALL_STORE to the folder that has them now, or run the recipe again"
    )


def check_files(folder: Path, expected: dict[str, str]) -> None:
    """Raises:
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
