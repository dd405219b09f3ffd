"""BFCL's own AST checker over answers, a line each; started by bfcl_agreement.py with the Python that has bfcl-eval.

in    {"category": "parallel", "functions": […], "truth": [{name: {argument: [accepted, …]}}], "calls": [{name: arguments}]}
out   ""  = right, or the checker's name for what is wrong
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from types import ModuleType, SimpleNamespace

# The checker asks this table only whether a model's tool names may hold dots; it imports every vendor's client.
models = ModuleType("bfcl_eval.constants.model_config")
models.MODEL_CONFIG_MAPPING = defaultdict(lambda: SimpleNamespace(underscore_to_dot=False))  # type: ignore[attr-defined]
sys.modules[models.__name__] = models

from bfcl_eval.constants.enums import Language  # noqa: E402
from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker  # noqa: E402

for line in sys.stdin:
    case = json.loads(line)
    try:
        found = ast_checker(
            case["functions"], case["calls"], case["truth"], Language.PYTHON, case["category"], "any/model"
        )
        wrong = "" if found["valid"] else found["error_type"]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as err:  # on answers that it does not expect
        wrong = f"raises {type(err).__name__}"
    sys.stdout.write(json.dumps(wrong) + "\n")
