"""The recipes in docs/ and cluster.yaml: every flag is one that the installed Ray and this package take."""

from __future__ import annotations

import os
import re
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from ray.scripts.scripts import cli as ray_cli
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

from pipeline.cli import app
from tests.document import find_commands
from tests.server.loopback import LoopbackServer

ROOT = Path(__file__).parent.parent.parent
RECIPES = [ROOT / "docs" / f"{name}.md" for name in ("cluster", "slurm", "kuberay")]
LAUNCHER = yaml.safe_load((ROOT / "cluster.yaml").read_text())


def read_blocks(path: Path, *languages: str) -> list[str]:
    """Return what stands between fences of these languages."""
    return [text for name, text in re.findall(r"```(\w+)\n(.*?)```", path.read_text(), re.DOTALL) if name in languages]


def read_shell(path: Path) -> str:
    """Return all shell code of a file: of a recipe, a script, or a launcher file and its comments."""
    if path.suffix == ".md":
        return "\n".join(read_blocks(path, "sh", "bash"))
    if path.suffix == ".yaml":
        examples = re.findall(r"^#   ( *\S.*)$", path.read_text(), re.MULTILINE)
        commands = [command for key in LAUNCHER if key.endswith("commands") for command in LAUNCHER[key]]
        return "\n".join([*examples, *commands])
    return path.read_text()


def parse(group: Any, arguments: list[str]) -> None:
    """Parse `arguments` as `group` would, and run nothing."""
    arguments = [re.sub(r"^(--[\w-]+=)?\$\w+$", r"\g<1>1", word) for word in arguments]  # what the shell fills in
    while isinstance(group, click.Group) or hasattr(group, "commands"):
        assert arguments[0] in group.commands, arguments
        group, arguments = group.commands[arguments[0]], arguments[1:]
    if group.name == "symmetric_run":
        group, arguments = (
            ray_cli.commands["start"],
            curate_and_validate_ray_start_args(arguments[: arguments.index("--")]),
        )
    group.make_context(group.name, arguments)


WITH_COMMANDS = [path for path in RECIPES if path.name != "kuberay.md"]  # whose command is in its manifest, below


@pytest.mark.parametrize(
    "path",
    [*WITH_COMMANDS, ROOT / "docs" / "spot-notice.sh", ROOT / "cluster.yaml", ROOT / "README.md"],
    ids=lambda p: p.name,
)
def test_every_command_takes_its_flags(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shell = read_shell(path)
    ray_commands, own_commands = find_commands(shell, "ray"), find_commands(shell, "superneurons")
    assert ray_commands or own_commands  # parsing raises at a flag that is not known
    for arguments in ray_commands:
        parse(ray_cli, arguments)
    for arguments in own_commands:
        parse(typer.main.get_command(app), arguments)


def test_the_commands_are_found_and_a_wrong_flag_is_seen() -> None:
    shell = "srun ray start --num-cpu=1 && superneurons extract \\\n  --tusk x # ray stop"
    assert find_commands(shell, "ray") == [["start", "--num-cpu=1"]]
    with pytest.raises(click.UsageError, match="num-cpu"):
        parse(ray_cli, *find_commands(shell, "ray"))
    with pytest.raises(Exception, match="tusk"):
        parse(typer.main.get_command(app), *find_commands(shell, "superneurons"))
    named = {words[0] for path in RECIPES for words in find_commands(read_shell(path), "ray")}
    assert named >= {"up", "down", "job", "dashboard", "drain-node", "symmetric-run"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_manifest_is_yaml_and_every_script_is_bash(path: Path) -> None:
    for block in read_blocks(path, "yaml"):
        assert isinstance(yaml.safe_load(block), dict)
    for block in read_blocks(path, "bash", "sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


def test_the_manifest_of_kuberay_asks_for_what_the_launcher_file_asks_for() -> None:
    (manifest,) = map(yaml.safe_load, read_blocks(ROOT / "docs" / "kuberay.md", "yaml"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    (arguments,) = find_commands(manifest["spec"]["entrypoint"], "superneurons")
    parse(typer.main.get_command(app), arguments)
    cluster = manifest["spec"]["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (group,) = cluster["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 8)
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert float(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"]) < pod["terminationGracePeriodSeconds"]


def test_the_runtime_environment_is_one_that_ray_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.runtime_env import RuntimeEnv

    (text,) = read_blocks(ROOT / "docs" / "cluster.md", "yaml")
    monkeypatch.chdir(ROOT)
    documented = yaml.safe_load(text)
    taken = RuntimeEnv(**documented)  # which raises at a field that it does not know
    assert taken["pip"]["packages"] == documented["pip"]["packages"]
    assert taken["env_vars"] == documented["env_vars"]
    assert taken["working_dir"] == documented["working_dir"]


def test_links_lead_somewhere() -> None:
    for path in RECIPES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


class Metadata(BaseHTTPRequestHandler):
    """EC2's metadata: there is no notice when it is first asked for."""

    n_asked = 0

    def do_PUT(self) -> None:
        self.answer(200, "a-token")

    def do_GET(self) -> None:
        assert self.path == "/latest/meta-data/spot/instance-action"
        assert self.headers["X-aws-ec2-metadata-token"] == "a-token"
        type(self).n_asked += 1
        self.answer(404 if self.n_asked == 1 else 200, '{"action": "terminate", "time": "2026-11-22T08:22:00Z"}')

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


def test_a_spot_notice_drains_the_node(tmp_path: Path) -> None:
    """With a stand-in for EC2 and one for the command ``ray``, which fails once."""
    calls, fake = tmp_path / "calls", tmp_path / "ray"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ntest "$(wc -l < {calls})" -gt 1\n')
    fake.chmod(0o755)
    with LoopbackServer(Metadata) as server:
        found = subprocess.run(
            ["bash", str(ROOT / "docs" / "spot-notice.sh")],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "EC2_METADATA": server.url, "POLL_S": "0.01"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert Metadata.n_asked == 3
    assert calls.read_text().count("drain-node --reason DRAIN_NODE_REASON_PREEMPTION") == 2
    assert '"action": "terminate"' in found.stdout
    assert "this node is draining" in found.stdout
