"""Clients generated from the OpenAPI document are built and used against the running service, without changes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service import Account, Service

pytestmark = pytest.mark.clients

PROGRAMS = Path(__file__).parent
ANSWERS = {
    "tier": "gold",
    "updated": ["Pepe", None],
    "amount": "149.99",
    "fault": ["[1].email", "invalid_email"],
    "walked": [*(f"Somebody {number}" for number in reversed(range(6))), "Pepe"],
    "found": [True],
    "totals": [1, 149.99],
    "unknown": "consumer_not_found",
}
PYTHON = ("openapi-python-client==0.29.1", "ruff==0.17.6")
NODE = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3", "tsx@4.23.15", "@types/node@20.19.43")
GO_GENERATOR = "github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2"


def run(folder: Path, *command: str, env: Mapping[str, str] = os.environ) -> str:
    done = subprocess.run(command, cwd=folder, env=dict(env), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def require(*programs: str) -> None:
    if missing := [program for program in programs if not shutil.which(program)]:
        pytest.skip(f"{' and '.join(missing)} must be installed")


@pytest.fixture
def folder(service: Service, tmp_path: Path) -> Path:
    """A folder with the document of the service."""
    document = httpx.get(f"{service.url}/openapi.json").raise_for_status().text
    (tmp_path / "openapi.json").write_text(document)
    return tmp_path


@pytest.fixture
def env(service: Service, account: Account) -> dict[str, str]:
    """The environment of the programs."""
    key = account.live.headers["Authorization"].removeprefix("Bearer ")
    return os.environ | {"SERVICE_URL": service.url, "SERVICE_KEY": key}


def answers(output: str) -> Any:
    return json.loads(output.strip().splitlines()[-1])


def copy(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        shutil.copy(PROGRAMS / name, folder)


def test_python_client(folder: Path, env: dict[str, str]) -> None:
    run(folder, sys.executable, "-m", "venv", "venv")
    run(folder, "venv/bin/python", "-m", "pip", "install", "--quiet", *PYTHON)
    run(folder, "venv/bin/openapi-python-client", "generate", "--path", "openapi.json", "--output-path", "client")
    copy(folder, ["program.py"])
    output = run(folder, "venv/bin/python", "program.py", env=env | {"PYTHONPATH": str(folder / "client")})
    assert answers(output) == ANSWERS


def test_typescript_client(folder: Path, env: dict[str, str]) -> None:
    require("node", "npm")
    (folder / "package.json").write_text('{"type": "module"}')
    run(folder, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock", *NODE)
    binaries = "node_modules/.bin"
    run(folder, f"{binaries}/openapi-typescript", "openapi.json", "--output", "schema.d.ts")
    copy(folder, ["program.ts"])
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    run(folder, f"{binaries}/tsc", *options, "--skipLibCheck", "program.ts")
    assert answers(run(folder, f"{binaries}/tsx", "program.ts", env=env)) == ANSWERS


def test_go_client(folder: Path, env: dict[str, str]) -> None:
    require("go")
    run(folder, "go", "mod", "init", "example.com/program")
    (folder / "client").mkdir()
    options = ["-generate", "types,client", "-package", "client", "-o", "client/client.go"]
    run(folder, "go", "run", GO_GENERATOR, *options, "openapi.json")
    copy(folder, ["program.go"])
    (folder / "update.json").write_text('{"fullName": "Pepe", "email": null}')
    run(folder, "go", "mod", "tidy")
    assert answers(run(folder, "go", "run", ".", env=env)) == ANSWERS
