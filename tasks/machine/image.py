"""Builds the training image with docker or buildah and pushes it where its name says.

make image                                                                       # rightcall:<commit>, stays here
make image IMAGE=123456789012.dkr.ecr.eu-central-1.amazonaws.com/rightcall:1     # and is pushed
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rightcall.errors import BackendError
from tasks.machine.checkout import CHECKOUT, git_commit
from tasks.machine.terminal import errors_end_the_command

CONTEXT = CHECKOUT / "training_image"
PLATFORM = "linux/amd64"  # SageMaker's GPU hosts, also when the image is built on a machine with an ARM processor
ECR = re.compile(r"\d{12}\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


def builder() -> str:
    """ "docker" where its engine answers, else "buildah".

    Raises:
        BackendError: neither is there.
    """
    if shutil.which("docker") and _succeeds("docker", "info"):
        return "docker"
    if shutil.which("buildah"):
        return "buildah"
    found = (
        "docker is installed, but its engine does not answer" if shutil.which("docker") else "docker is not installed"
    )
    raise BackendError(
        f"{found}, and buildah is not installed, so no image can be built; start Docker, or apt-get install buildah"
    )


def registry(image: str) -> str | None:
    """The registry in an image's name; None = a name for this machine alone."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else None


def build(
    tool: str, image: str, build_arguments: dict[str, str], *, pip_conf: Path | None = None, more: Sequence[str] = ()
) -> None:
    """Builds ``image`` from training_image/; ``more``: the tool's own arguments.

    Raises:
        BackendError: the tool ended with an error, which stands above on the terminal.
    """
    secret = ["--secret", f"id=pip_conf,src={pip_conf}"] if pip_conf else []
    values = {"REVISION": git_commit(12), **build_arguments}
    given = [part for name, value in values.items() for part in ("--build-arg", f"{name}={value}")]
    status = subprocess.run(
        [tool, "build", "--platform", PLATFORM, "--tag", image, *given, *secret, *more, str(CONTEXT)],
        env=os.environ | {"DOCKER_BUILDKIT": "1"},  # secrets need it
        check=False,
    ).returncode
    if status:
        raise BackendError(
            f"{tool} build ended with status {status}; its last lines above say why. A base that cannot be pulled needs a login, "
            f"AWS's own too: {login_command(tool, build_arguments.get('BASE_IMAGE', ''))}"
        )


def push(tool: str, image: str) -> None:
    """Sends the image to the registry in its name.

    Raises:
        BackendError: the registry refused; the message has the commands that help.
    """
    status = subprocess.run([tool, "push", image], check=False).returncode
    if not status:
        return
    advice = f"log in first: {login_command(tool, image)}"
    if match := ECR.match(image):
        name = image.partition("/")[2].partition(":")[0]
        advice += f"; make the repository once: aws ecr create-repository --region {match[1]} --repository-name {name}"
    raise BackendError(f"{image!r} was built, but {tool} push ended with status {status}; {advice}")


def login_command(tool: str, image: str) -> str:
    match = ECR.match(image)
    if match is None:
        return f"{tool} login {registry(image) or '<registry>'}"
    password = f"aws ecr get-login-password --region {match[1]}"
    return f"{password} | {tool} login --username AWS --password-stdin {match[0]}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m tasks.machine.image", description="Build the training image, and push it."
    )
    parser.add_argument("image", nargs="?", help="name and tag; with a registry in front it is pushed")
    parser.add_argument("--base", help="base image instead of the Dockerfile's")
    parser.add_argument(
        "--flash-attention", metavar="VERSION", help="add flash-attn; needs a base with nvcc or a wheel"
    )
    parser.add_argument("--run-as", help="user of the program; root (the default) is what SageMaker needs")
    parser.add_argument("--pip-conf", type=Path, help="pip.conf of a company's index; in no layer of the image")
    parser.add_argument("more", nargs="*", help="after --: arguments of docker or buildah build")
    given = parser.parse_args(arguments)
    image = given.image or f"rightcall:{git_commit(12)}"
    chosen = {"BASE_IMAGE": given.base, "FLASH_ATTENTION": given.flash_attention, "RUN_AS": given.run_as}
    with errors_end_the_command():
        tool = builder()
        build(
            tool,
            image,
            {name: value for name, value in chosen.items() if value},
            pip_conf=given.pip_conf,
            more=given.more,
        )
        if registry(image):
            push(tool, image)
    sys.stdout.write(f"{image} built{' and pushed' if registry(image) else ''}; use it: RIGHTCALL_IMAGE={image}\n")


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main()
