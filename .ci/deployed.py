"""What deploy/ asks of a node and of compose: .ci/deployed.py BINARY SCHEMA.

The settings that the container image, the compose file, the manifests and the
unit put into a node's environment are read by the node itself; the compose file
follows its schema (compose-spec.json), and the files that it mounts exist.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import jsonschema
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent / "deploy"


def main(binary, schema):
    compose = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    follows_schema(compose, json.loads(pathlib.Path(schema).read_text()))
    mounts_exist(compose)
    image = image_environment()
    checked = 0
    for name, service in compose["services"].items():
        if "build" in service:
            check(binary, f"compose: {name}", {**image, **service["environment"]})
            checked += 1
    for path in sorted((DEPLOY / "kubernetes/base").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document.get("spec", {}).get("template"):
                check(binary, f"kubernetes: {path.name}", {**image, **pod_environment(document)},
                      "--config", DEPLOY / "kubernetes/base/config.toml")
                checked += 1
    unit = re.findall(r"^Environment=(\w+)=(.*)$", (DEPLOY / "systemd/taskmesh.service").read_text(), re.M)
    check(binary, "systemd", {name: value.replace("%S", "/var/lib") for name, value in unit})
    print(f"the settings of {checked + 1} nodes are right")


def follows_schema(compose, schema):
    # The schema is older than the project's name, which is no service's business.
    assert isinstance(compose.pop("name"), str)
    jsonschema.validate(compose, schema)
    print("deploy/compose.yml follows the schema of Compose")


def mounts_exist(compose):
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = (DEPLOY / source).exists() if source.startswith(".") else source in compose["volumes"]
            assert there, f"{name} mounts {source}, which is not there"


def image_environment():
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.removeprefix("ENV ") for line in text.splitlines() if line.startswith("ENV ")]
    found = dict(re.findall(r"(TASKMESH_\w+)=(\S+)", " ".join(lines)))
    assert found, "the image has settings"
    return found


def pod_environment(document):
    (container,) = document["spec"]["template"]["spec"]["containers"]
    known = {"POD_NAME": "taskmesh-0", "POD_IP": "10.0.0.1"}
    fill = lambda value: re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], value)
    return {entry["name"]: fill(entry["value"]) for entry in container["env"] if "value" in entry}


def check(binary, name, environment, *flags):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TASKMESH_")}
    command = [binary, "config", "check", *flags]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, f"{name}: {done.stderr}"


if __name__ == "__main__":
    main(*sys.argv[1:])
