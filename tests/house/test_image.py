"""The training image: its packages are constraints.txt's, its Dockerfile is clean, and it trains (make image-test)."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from image_requirements import EXTRAS, REQUIREMENTS, direct, pins, requirements_text
from packaging.utils import canonicalize_name
from training_jobs import make_root

from rightcall.errors import BackendError
from tasks.machine import image

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "training_image" / "Dockerfile"
STEPS = 5


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, its text), continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in joined.splitlines()]


def one(name: str) -> str:
    (text,) = [text for instruction, text in instructions() if instruction == name]
    return text


def test_the_requirements_are_what_pyproject_asks_for_at_the_versions_of_the_constraints() -> None:
    assert REQUIREMENTS.read_text() == requirements_text(), "run python tests/generators/image_requirements.py"


def test_the_requirements_hold_more_than_was_asked_for_by_name() -> None:
    """A list without what the packages themselves need would let a new release into every later build."""
    listed, asked = set(pins(REQUIREMENTS)), {canonicalize_name(requirement.name) for requirement in direct()}
    assert asked < listed
    assert {"botocore", "huggingface-hub", "pydantic-core"} <= listed - asked


def test_every_package_that_the_program_imports_is_in_the_image() -> None:
    """The modules of training_image/, lazy imports too; packages of the standard library and our own left out."""
    distributions = {"ruamel": "ruamel-yaml", "PIL": "pillow"}
    imported = set()
    for path in (ROOT / "training_image").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            imported |= {name.split(".")[0] for name in names}
    ours = {path.stem for path in (ROOT / "training_image").iterdir()}
    foreign = imported - set(sys.stdlib_module_names) - ours - {"__future__"}
    assert "torch" in foreign
    listed = set(pins(REQUIREMENTS))
    assert {name for name in foreign if canonicalize_name(distributions.get(name, name)) not in listed} == set()


def test_hadolint_finds_nothing_in_the_dockerfile_and_would_find_something() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    clean = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (clean.returncode, clean.stdout) == (0, "")
    dirty = DOCKERFILE.read_text().replace(
        'ENTRYPOINT ["python", "/opt/rightcall/entry.py"]', "ENTRYPOINT python entry.py"
    )
    found = subprocess.run([hadolint, "-"], input=dirty, capture_output=True, text=True, check=False)
    assert (found.returncode, "DL3025" in found.stdout) == (1, True)


def test_the_entrypoint_is_in_exec_form_so_that_sigterm_reaches_the_program() -> None:
    assert json.loads(one("ENTRYPOINT")) == ["python", "/opt/rightcall/entry.py"]


def test_no_code_lies_where_sagemaker_mounts_over_it() -> None:
    copied = [text.split()[-1] for instruction, text in instructions() if instruction in ("COPY", "ADD")]
    assert copied
    assert [target for target in copied if not target.startswith("/opt/rightcall/")] == []


def test_the_base_is_chosen_at_build_time_and_the_default_can_be_pulled_without_an_account() -> None:
    assert one("FROM") == "${BASE_IMAGE}"
    assert ("ARG", "BASE_IMAGE=docker.io/library/python:3.11-bookworm") in instructions()


def test_every_pip_install_leaves_no_cache_and_takes_a_companys_index_as_a_secret() -> None:
    installs = [text for instruction, text in instructions() if instruction == "RUN" and "pip install" in text]
    assert len(installs) == 2
    assert all("--no-cache-dir" in text and "--mount=type=secret,id=pip_conf" in text for text in installs)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rightcall:1", None),
        ("team/rightcall:1", None),  # Docker Hub's short form: never pushed by accident
        ("docker.io/team/rightcall:1", "docker.io"),
        ("localhost:5000/rightcall", "localhost:5000"),
        (
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com/rightcall:1",
            "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
        ),
    ],
)
def test_only_a_name_with_a_registry_is_pushed(name: str, expected: str | None) -> None:
    assert image.registry(name) == expected


def test_the_login_hint_names_region_and_registry_of_ecr() -> None:
    registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    assert image.login_command("buildah", f"{registry}/rightcall:1") == (
        f"aws ecr get-login-password --region eu-central-1 | buildah login --username AWS --password-stdin {registry}"
    )


def test_a_refused_push_says_how_to_log_in_and_how_to_make_the_repository() -> None:
    with pytest.raises(BackendError, match="get-login-password --region eu-west-1") as caught:
        image.push("false", "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/rightcall:1")  # a tool that always fails
    assert "aws ecr create-repository --region eu-west-1 --repository-name team/rightcall" in str(caught.value)


def test_without_docker_and_buildah_the_error_says_what_to_install(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tasks.machine.image"], cwd=ROOT, env=os.environ | {"PATH": str(tmp_path)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.lstrip().startswith("BackendError: docker is not installed, and buildah is not installed")
    assert "apt-get install buildah" in run.stderr


def test_the_extras_of_the_image_are_extras_that_make_setup_installs() -> None:
    """Otherwise the list could not be written from what is installed."""
    (setup,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "--editable" in line]
    installed = setup.split("[")[1].split("]")[0].split(",")
    assert set(EXTRAS) <= set(installed)


# --- the real thing, minutes long ---


def left_out() -> str:
    """Why the image is not built here; "" = it is."""
    if not os.environ.get("RIGHTCALL_IMAGE_TEST"):
        return "builds an image for ten minutes or more; make image-test runs it"
    missing = [tool for tool in ("buildah", "mmdebstrap") if not shutil.which(tool)]
    if missing:
        return f"{' and '.join(missing)} not installed: apt-get install buildah mmdebstrap (Debian, Ubuntu)"
    if os.geteuid() != 0:
        return "needs root: mmdebstrap and buildah's chroot isolation mount file systems"
    return ""


@dataclass(frozen=True)
class Built:
    """A container of the image, made but not running."""

    name: str
    root: Path  # its files
    seconds: float

    def run(self, job: Path, *command: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        options = ["--isolation", "chroot", "--user", user, "--volume", f"{job}:/opt/ml"]
        return subprocess.run(
            ["buildah", "run", *options, self.name, "--", *command], capture_output=True, text=True, check=False
        )


def pip_settings() -> dict[str, str]:
    """This machine's way to its package index; a variable wins over a file, as for pip."""
    listed = subprocess.check_output([sys.executable, "-m", "pip", "config", "list"], text=True)
    lines = sorted((line for line in listed.splitlines() if "=" in line), key=lambda line: line.startswith(":env:"))
    found = {name.split(".")[-1]: ast.literal_eval(value) for name, _, value in (line.partition("=") for line in lines)}
    return {name: value for name, value in found.items() if name not in ("constraint", "config-file", "editable")}


def local_indexes(settings: dict[str, str]) -> set[Path]:
    """Folders and files of this machine that the settings name; an index lies beside its files."""
    parts = [part for value in settings.values() for part in value.split()]
    named = {Path(part.removeprefix("file://")).parent for part in parts if part.startswith("file:///")}
    return {path for path in named | {Path(part) for part in parts if part.startswith("/")} if path.exists()}


def buildah(*command: str) -> str:
    return subprocess.run(["buildah", *command], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    if reason := left_out():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("image")
    with pytest.MonkeyPatch.context() as patch:
        storage = folder / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n', encoding="utf-8"
        )
        patch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
        patch.setenv("BUILDAH_ISOLATION", "chroot")
        try:
            yield build_on_debian(folder)
        finally:
            buildah("rm", "--all")
            subprocess.run(["rm", "--recursive", "--force", "--one-file-system", folder], check=True)


def build_on_debian(folder: Path) -> Built:
    started = time.monotonic()
    debian = folder / "debian.tar"
    packages = "ca-certificates,python3,python3-pip,python-is-python3"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", debian], check=True
    )
    container = buildah("from", "scratch")
    buildah("add", container, str(debian), "/")
    buildah("commit", "--quiet", "--rm", container, "localhost/debian")
    debian.unlink()
    settings = pip_settings()
    pip_conf = folder / "pip.conf"
    pip_conf.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
    volumes = [part for path in local_indexes(settings) for part in ("--volume", f"{path}:{path}:ro")]
    image.build("buildah", "rightcall:test", {"BASE_IMAGE": "localhost/debian"}, pip_conf=pip_conf, more=volumes)
    container = buildah("from", "localhost/rightcall:test")
    return Built(container, Path(buildah("mount", container)), time.monotonic() - started)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("user", ["root", "rightcall"])
def test_the_image_trains_with_the_losses_of_this_checkout(
    built: Built, tiny_model: Path, tmp_path: Path, user: str, record_property: pytest.RecordProperty
) -> None:
    record_property("build_seconds", round(built.seconds))
    jobs = [tmp_path / "inside", tmp_path / "outside"]
    for job in jobs:
        make_root(job, tiny_model, "sft", sft={"max_steps": STEPS})
        (job / "input/data/model").unlink()  # a link out of the container's sight
        shutil.copytree(tiny_model, job / "input/data/model")
    if user != "root":
        subprocess.run(["chown", "--recursive", "10001:10001", jobs[0]], check=True)
    config = json.loads(buildah("inspect", "--type", "image", "localhost/rightcall:test"))["OCIv1"]["config"]
    inside = built.run(jobs[0], *config["Entrypoint"], "train", user=user)  # SageMaker's own argument
    assert inside.returncode == 0, inside.stderr[-2000:]
    environment = os.environ | {"SM_ML_ROOT": str(jobs[1])}
    subprocess.run([sys.executable, ROOT / "training_image/entry.py"], env=environment, capture_output=True, check=True)
    losses = [
        [json.loads(line)["loss"] for line in (job / "output/data/metrics.jsonl").read_text().splitlines()]
        for job in jobs
    ]
    assert len(losses[0]) == STEPS
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert (jobs[0] / "model/model.safetensors").stat().st_size > 0


@pytest.mark.timeout(7200)
def test_the_image_holds_the_program_its_pins_and_no_cache(built: Built, tmp_path: Path) -> None:
    program = {
        path.relative_to(ROOT / "training_image").as_posix()
        for path in (ROOT / "training_image").rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.name not in ("Dockerfile", ".dockerignore")
    }
    inside = {
        path.relative_to(built.root / "opt/rightcall").as_posix()
        for path in (built.root / "opt/rightcall").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert inside == program
    frozen = built.run(tmp_path, "python", "-m", "pip", "list", "--format", "json").stdout
    versions = {canonicalize_name(entry["name"]): entry["version"].partition("+")[0] for entry in json.loads(frozen)}
    assert {name: versions.get(name) for name in pins(REQUIREMENTS)} == pins(REQUIREMENTS)
    left = [path for path in ("root/.cache", "home/rightcall/.cache", "etc/pip.conf") if (built.root / path).exists()]
    assert left == []
