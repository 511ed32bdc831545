"""What deploy/ asks of a node and of compose: .ci/deployed.py BINARY SCHEMA.

The settings that the container image, the compose file, the manifests and the
unit put into a node's environment are read by the node itself; the compose file
follows its schema (compose-spec.json), and the files that it mounts exist. What
the Debian package is made of is there, and it, the image and the unit agree on
where workflow templates are.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
TEMPLATES = "/etc/taskmesh/templates"


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
    unit = {name: value.replace("%S", "/var/lib").replace("%E", "/etc") for name, value in unit}
    check(binary, "systemd", unit)
    templates_are_shipped(image, unit)
    print(f"the settings of {checked + 1} nodes are right")


def templates_are_shipped(image, unit):
    shipped = {path.name for path in (ROOT / "config/templates").glob("*.yaml")}
    package = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["metadata"]["deb"]
    installed = set()
    for source, target, _ in package["assets"]:
        found = [pathlib.Path(path).name for path in ROOT.glob(source)]
        assert found or source.startswith("target/stage/"), f"the Debian package is to have {source}, which is not there"
        installed |= {f"/{target}{name}" if target.endswith("/") else f"/{target}" for name in found}
    changed = set(package["conf-files"])
    assert changed <= installed, f"conf-files has what is not installed: {changed - installed}"
    wanted = {f"{TEMPLATES}/{name}" for name in shipped}
    assert shipped and wanted <= changed, f"the Debian package lacks {wanted - changed}"
    assert f"COPY config/templates/*.yaml {TEMPLATES}/" in (DEPLOY / "Dockerfile").read_text(), "the image has none"
    for name, environment in {"image": image, "unit": unit}.items():
        assert environment["TASKMESH_NODE_TEMPLATES_DIR"] == TEMPLATES, f"the {name} looks elsewhere"
    print(f"{len(shipped)} templates are in the package and in the image")


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
