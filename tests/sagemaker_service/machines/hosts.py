"""One instance of a job: its folder, laid out as the service lays out /opt/ml, and the program that runs over it."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rightcall.job.parent_death import die_with_parent
from sagemaker_service.api.jobs import Job
from sagemaker_service.api.logs import LogStream
from sagemaker_service.machines.storage import CheckpointSync

FAILURE_CHARACTERS = 1024
IMAGE = Path(__file__).resolve().parents[3] / "training_image"  # what our image has in /opt/rightcall
PROGRAM = ("python", "/opt/rightcall/entry.py")  # its entrypoint
PASSED_ON = ("LANG", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")  # what a machine has, never credentials
UNSHARE = (
    "unshare", "--user", "--map-root-user", "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
)  # fmt: skip
# /opt/ml must appear without making a folder on the machine's own disk: a tmpfs lies over /opt, everything that was there is
# bound into it again. $1 the host's folder, $2 its /etc/hosts, $3 its name, $4 an empty folder, $5 what the image has in
# /opt/rightcall; the rest is the program.
ENTER = """
set -e
root=$1 names=$2 name=$3 old=$4 image=$5
shift 5
mkdir -p "$old"
mount --rbind /opt "$old"
mount -t tmpfs tmpfs /opt
for path in "$old"/*; do
  base=${path##*/}
  if [ -L "$path" ]; then cp -P "$path" "/opt/$base"
  elif [ "$base" = ml ] || [ "$base" = rightcall ]; then continue
  elif [ -d "$path" ]; then mkdir "/opt/$base"; mount --rbind "$path" "/opt/$base"
  elif [ -f "$path" ]; then touch "/opt/$base"; mount --bind "$path" "/opt/$base"
  fi
done
mkdir /opt/ml /opt/rightcall
mount --rbind "$root" /opt/ml
mount --rbind "$image" /opt/rightcall
mount --bind "$names" /etc/hosts
hostname "$name"
cd /opt/ml
touch "$old.entered"
exec "$@"
"""


class Host:
    def __init__(
        self, job: Job, number: int, names: Sequence[str], *, folder: Path, stream: LogStream, contained: bool
    ) -> None:
        self.job, self.number, self.names, self.folder = job, number, names, folder
        self.stream, self.contained = stream, contained
        self.root = folder / "ml"
        self.sync: CheckpointSync | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    @property
    def checkpoints(self) -> Path:
        local = self.job.request.get("CheckpointConfig", {}).get("LocalPath", "/opt/ml/checkpoints")
        return self.root / Path(local).relative_to("/opt/ml")

    def channel(self, name: str) -> Path:
        return self.root / "input" / "data" / name

    def prepare(self) -> None:
        """The folders and the three files of input/config."""
        for name in ("input/config", "input/data", "model", "output/data"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        request = self.job.request
        kind = self.job.instance_type
        group = {"instance_group_name": "homogeneousCluster", "instance_type": kind, "hosts": list(self.names)}
        contents: dict[str, Any] = {
            "hyperparameters": request.get("HyperParameters", {}),
            "inputdataconfig": {
                channel["ChannelName"]: {
                    "TrainingInputMode": "File",
                    "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                        "S3DataDistributionType", "FullyReplicated"
                    ),
                    "RecordWrapperType": channel.get("RecordWrapperType", "None"),
                }
                for channel in request.get("InputDataConfig", [])
            },
            "resourceconfig": {
                "current_host": self.names[self.number - 1], "current_instance_type": kind,
                "current_group_name": "homogeneousCluster", "hosts": list(self.names), "instance_groups": [group],
                "network_interface_name": "lo",
            },
        }  # fmt: skip
        for name, content in contents.items():
            (self.root / "input/config" / f"{name}.json").write_text(json.dumps(content))
        lines = ["127.0.0.1 localhost", *(f"127.0.0.{number} {name}" for number, name in enumerate(self.names, 1))]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")

    def start(self, command: Sequence[str], environment: dict[str, str]) -> None:
        """From the thread that waits for it: the kernel kills the program when that thread ends in any way."""
        if self.contained:
            name = self.names[self.number - 1]
            mounts = (self.root, self.folder / "hosts", name, self.folder / "opt", IMAGE)
            command = [*UNSHARE, "sh", "-c", ENTER, "sh", *map(str, mounts), *command]
        else:
            command = [word.replace("/opt/rightcall/", f"{IMAGE}/") for word in command]
            environment = environment | {"SM_ML_ROOT": str(self.root)}
        passed_on = {name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith("LC_")}
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
        self._process = subprocess.Popen(
            command, env=passed_on | {"PATH": path, "HOME": str(self.folder)} | environment, cwd=self.root,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=die_with_parent(parent=os.getpid()),  # noqa: PLW1509  one system call, no locks
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.stream.write(line.decode(errors="replace"))

    @property
    def exit_code(self) -> int | None:
        """As a shell and the service say it: 137 for a program that was killed. None while it runs."""
        code = self._process.poll() if self._process else None
        return 128 - code if code is not None and code < 0 else code

    @property
    def pid(self) -> int | None:
        """The program's own process, PID 1 of its namespace."""
        if self._process is None or not self.contained:
            return self._process.pid if self._process else None
        with suppress(OSError):
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            return int(children[0]) if children else None
        return None

    def ask_to_end(self) -> None:
        """SIGTERM to the program alone, as a container runtime does; a PID 1 without a handler never sees it."""
        deadline = time.monotonic() + 10
        while self.contained and self.exit_code is None and not (self.folder / "opt.entered").exists():
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)  # the shell that mounts is PID 1 before the program is, and would swallow the signal
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid or self._process.pid, signal.SIGTERM)

    def end(self) -> None:
        """Kills what is left of the program's family."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._reader is not None:
            self._reader.join(5)

    def failure(self) -> str:
        path = self.root / "output" / "failure"
        text = path.read_text(errors="replace") if path.is_file() else ""
        return text[:FAILURE_CHARACTERS]


@functools.cache
def containable(folder: Path) -> str | None:
    """None when a host can have a true /opt/ml here, else why not."""
    if not Path("/opt").is_dir() or folder.resolve().is_relative_to("/opt"):
        return "there is no /opt, or the service's own folder lies in it"
    root = folder / "probe"
    (root / "ml").mkdir(parents=True, exist_ok=True)
    (root / "hosts").write_text("127.0.0.1 localhost algo-1\n")
    (root / "ml" / "here").touch()
    command = [
        *UNSHARE, "sh", "-c", ENTER, "sh", str(root / "ml"), str(root / "hosts"), "algo-1", str(root / "opt"), str(IMAGE),
        "sh", "-c", 'test -f /opt/ml/here && test "$$" = 1 && test "$(hostname)" = algo-1',
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        return str(err)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"
