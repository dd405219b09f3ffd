"""What must not be shown or logged: passwords in addresses, values whose name says that they are secret."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

SECRET = re.compile(
    r"^token$|(hub|hf|auth|access|api|bearer|session|refresh|security)_?token$"
    r"|secret|passw(or)?d|api_?key|access_?key|credential",
    re.IGNORECASE,
)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """{"dpo": {"beta": 0.1}} → {"dpo.beta": "0.1"}, without secrets; what lies in lists stays JSON."""
    found: dict[str, str] = {}
    for name, value in redact(values).items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{path}.")
        else:
            found[path] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def redact(value: Any, name: str = "") -> Any:
    """The same without passwords in addresses and without values whose name says that they are secret."""
    if isinstance(value, Mapping):
        return {key: redact(entry, str(key)) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [redact(entry) for entry in value]
    if value is not None and SECRET.search(name):
        return "***"
    return without_password(value) if isinstance(value, str) else value


def without_password(text: str) -> str:
    text = re.sub(r"(://[^/\s@:]*):[^\s@]*@", r"\1:***@", text)
    return re.sub(r"([?&]\w*(?:password|passwd|pwd)=)[^&\s'\"]*", r"\1***", text, flags=re.IGNORECASE)
