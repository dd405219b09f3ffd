"""A training program in small: it speaks the job contract, so that real kills of real processes need no model.

Its "weights" are a hash chain over all steps: a step that is lost, done twice or done on another state shows in them.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

root = Path(os.environ.get("SM_ML_ROOT", "/opt/ml"))
job = json.loads((root / "input/data/job/job.json").read_text())
settings_path = root / "input/data/dataset/settings.json"  # what the test wants to happen
settings = json.loads(settings_path.read_text()) if settings_path.exists() else {}
total_steps = job["recipe"]["sft"]["max_steps"]
metrics_path = root / "output/data/metrics.jsonl"
stopping: list[bool] = []


def ask_to_stop(*_: object) -> None:
    stopping.append(True)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def save(step: int, state: str) -> None:
    folder = root / f"checkpoints/checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    (folder / "state").write_text(state)
    (folder / "COMPLETE").touch()


def resume() -> tuple[int, str]:
    steps = [int(path.parent.name.rpartition("-")[2]) for path in root.glob("checkpoints/checkpoint-*/COMPLETE")]
    step = max(steps, default=0)
    lines = metrics_path.read_text().splitlines() if metrics_path.exists() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    metrics_path.write_text("".join(line + "\n" for line in kept))
    return step, (root / f"checkpoints/checkpoint-{step}/state").read_text() if step else "start"


def fail(text: str) -> None:
    (root / "output/failure").write_text(text)
    sys.exit(1)


signal.signal(signal.SIGTERM, ask_to_stop)
say(f"environment {json.dumps(sorted(os.environ))}")
for line in range(settings.get("noise", 0)):
    say(f"a line of noise {line}")
if settings.get("worker") and os.fork() == 0:  # a grandchild in its own session that ignores all polite signals
    os.setsid()
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    time.sleep(300)
    os._exit(0)
first, state = resume()
say(f"from step {first}")
for step in range(first + 1, total_steps + 1):
    state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
    time.sleep(settings.get("seconds", 0.0))
    with metrics_path.open("a") as stream:
        line = {
            "step": step,
            "total_steps": total_steps,
            "loss": int(state[:4], 16) / 65536,
            "tokens_per_second": 100.0,
        }
        stream.write(json.dumps(line) + "\n")
    if os.environ.get("RIGHTCALL_METRICS_TO_LOG") == "1":
        say(f"RIGHTCALL_METRICS {json.dumps(line)}")
    if step % 5 == 0 or stopping:
        save(step, state)
    if stopping:
        sys.exit(143)
    if step == settings.get("fail_at"):
        fail(settings["failure"])
    if step == settings.get("die_at"):
        say("the last words")
        os.kill(os.getpid(), signal.SIGKILL)
if settings.get("no_model"):
    sys.exit(0)
(root / "model/config.json").write_text("{}")
(root / "model/weights").write_text(state)
(root / "output/data/summary.json").write_text(json.dumps({"steps": total_steps, "first": first}))
