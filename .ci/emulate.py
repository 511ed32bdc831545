"""The containers of deploy/ without a container engine: .ci/emulate.py BINARY FOLDER.

Each is the node in network and mount namespaces of its own: the image's user,
environment and read-only root, with names from a DNS server as the engine has
it (Docker: one label; Kubernetes: search domains and ndots:5). Needs root.

- compose: three nodes find each other by their names, the health check passes,
  Prometheus would find all three through /sd, and `stop` ends a node in time.
- Kubernetes: nodes and a worker find each other by the headless service, all
  probes pass where the kubelet asks, a pod that drains is not ready and lives,
  and what it ran is done; it comes back with its disk and another address.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

import yaml

TREE = pathlib.Path(__file__).resolve().parent.parent
DEPLOY = TREE / "deploy"
USER = 65532
NET = "10.77.0."
DNS = f"{NET}1"
DOMAIN = "mesh.svc.cluster.local"


def main(binary, folder):
    shutil.rmtree(folder, ignore_errors=True)
    root = make_root(pathlib.Path(binary).resolve(), folder / "root")
    for name, body in [("compose", compose), ("kubernetes", kubernetes)]:
        host = Host(folder / name, root)
        try:
            host.begin()
            body(host)
        except BaseException:
            for log in sorted(host.folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-2000:]}")
            raise
        finally:
            host.close()


def compose(host):
    asked = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    services = {name: of for name, of in asked["services"].items() if "build" in of}
    image = Image()
    key = host.secret("mesh.key", 0o644)
    host.names({name: host.address(n) for n, name in enumerate(services)}, f"nameserver {DNS}\noptions ndots:0\n")
    for n, (name, service) in enumerate(services.items()):
        target = service["volumes"][0].split(":")[1]
        data = host.data(name, 0o700, USER)
        secrets = [(key, f"/run/secrets/{secret}") for secret in service["secrets"]]
        host.run(name, n, {**image.environment, **service["environment"]}, image.command, [(data, target)], secrets)
    for name in services:
        until(f"{name} is healthy", lambda: host.call(name, image.health).returncode == 0)
        until(f"{name} is ready", lambda: host.call(name, "health --ready").returncode == 0)
    until("all answer", lambda: host.json("node1", "queue stats")["nodes_answered"] == len(services))
    wanted = {service["environment"]["TASKMESH_METRICS_ADVERTISE"] for service in services.values()}
    until("one lists where the metrics of all are", lambda: host.targets(1) == wanted)
    assert host.get(0, 4780, "/mcp", "https")[0] == 401, "MCP asks for a token, over TLS"
    grace = int(asked["x-node"]["stop_grace_period"].removesuffix("s"))
    took = host.stop("node3", grace)
    print(f"compose: {len(services)} nodes are healthy and found by {sorted(wanted)}; one stopped in {took:.1f} s")


def kubernetes(host):
    image = Image()
    pods = {}
    for kind in ["nodes", "workers"]:
        (of,) = yaml.safe_load_all((DEPLOY / f"kubernetes/base/{kind}.yaml").read_text())
        spec, base = of["spec"]["template"]["spec"], of["metadata"]["name"]
        for n in range(3 if kind == "nodes" else 1):
            pods[f"{base}-{n}" if kind == "nodes" else f"{base}-7d9c-x2x4k"] = spec
    grace = pods["taskmesh-0"]["terminationGracePeriodSeconds"]
    key = host.secret("mesh.key", 0o440)
    config = DEPLOY / "kubernetes/base/config.toml"
    resolv = f"search {DOMAIN} svc.cluster.local cluster.local\nnameserver {DNS}\noptions ndots:5\n"
    names = {f"{pod}.taskmesh-nodes.{DOMAIN}": host.address(n) for n, pod in enumerate(pods) if "worker" not in pod}
    host.names(names, resolv)

    def start(n, pod):
        (container,) = pods[pod]["containers"]
        known = {"metadata.name": pod, "status.podIP": host.address(n)}
        env = dict(image.environment)
        for entry in container["env"]:
            given = entry.get("value") or known[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            env[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda found: env[found[1]], given)
        # fsGroup: the volume is root's, and its group may write.
        data = host.data(pod, 0o2775, 0)
        host.run(pod, n, env, shlex.join(container["args"]), [(data, "/var/lib/taskmesh")],
                 [(key, "/etc/taskmesh/key/mesh.key"), (config, "/etc/taskmesh/config.toml")])

    def probe(n, pod, name):
        (container,) = pods[pod]["containers"]
        asked = container[name]["httpGet"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        return host.get(n, ports[asked["port"]], asked["path"])[0]

    for n, pod in enumerate(pods):
        start(n, pod)
    for n, pod in enumerate(pods):
        for name in ["startupProbe", "livenessProbe", "readinessProbe"]:
            until(f"{name} of {pod}", lambda: probe(n, pod, name) == 200)
    last, node = "taskmesh-2", "taskmesh-0"
    until("all answer", lambda: host.json(node, "queue stats")["nodes_answered"] == len(pods))
    items = 24
    done = host.call(node, "task submit sleep '{}' --task-id work" + """ --item '{"ms": 4000}'""" * items)
    assert done.returncode == 0, done.stderr
    peer = json.loads((host.data(last, 0, 0) / "node/node.json").read_text())["peer_id"]
    stats = lambda: host.json(node, "queue stats --include-worker-stats")["worker_stats"]
    until("the pod has work", lambda: any(of["node"] == peer and of["running_tasks"] for of in stats()))

    def drains():
        until("a pod that drains is not ready", lambda: probe(2, last, "readinessProbe") == 503)
        assert probe(2, last, "livenessProbe") == 200, "and it lives"

    took = host.stop(last, grace, drains)
    until("all work is done", lambda: host.json(node, "queue stats")["completed_count"] == items)
    host.move(2)
    host.names({**names, f"{last}.taskmesh-nodes.{DOMAIN}": host.address(2)}, resolv)
    start(2, last)
    until("it is ready elsewhere", lambda: probe(2, last, "readinessProbe") == 200)
    until("all answer again", lambda: host.json(node, "queue stats")["nodes_answered"] == len(pods))
    again = host.address(2)
    print(f"Kubernetes: {len(pods)} pods pass all probes; one drained in {took:.1f} s and came back at {again}")


class Image:
    """What deploy/Dockerfile gives a container."""

    def __init__(self):
        lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
        env = " ".join(line for line in lines if line.startswith("ENV "))
        self.environment = dict(re.findall(r"(\w+)=(\S+)", env)) | {"PATH": "/usr/local/bin:/bin"}
        (entry,) = [json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT ")]
        (command,) = [json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]
        (health,) = [json.loads(line.split("CMD ")[1]) for line in lines if line.startswith("HEALTHCHECK ")]
        assert entry == health[:1], "the health check is of the same program"
        assert f"USER {USER}:{USER}" in lines, "the user is the one that is emulated"
        self.command, self.health = shlex.join(command), shlex.join(health[1:])


class Host:
    """A bridge with a DNS server, and a namespace for each container."""

    def __init__(self, folder, root):
        self.folder, self.root, self.tag = folder, root, f"tm{os.getpid() % 10000}"
        self.processes, self.containers, self.places, self.dns = {}, {}, {}, None
        folder.mkdir(parents=True)

    def begin(self):
        ip(f"netns add {self.tag}")
        ip(f"-n {self.tag} link set lo up")
        ip(f"-n {self.tag} link add name br0 type bridge")
        ip(f"-n {self.tag} addr add {DNS}/24 dev br0")
        ip(f"-n {self.tag} link set br0 up")

    def address(self, n):
        return f"{NET}{self.places.get(n, 10 + n)}"

    def names(self, names, resolv):
        if self.dns:
            end(self.dns)
        command = ["ip", "netns", "exec", self.tag, sys.executable, __file__, "--dns", json.dumps(names)]
        self.dns = subprocess.Popen(command)
        (self.folder / "resolv.conf").write_text(resolv)

    def secret(self, name, mode):
        path = self.folder / name
        path.write_text(os.urandom(32).hex() + "\n")
        path.chmod(mode)
        os.chown(path, 0, USER)
        return path

    def data(self, name, mode, owner):
        path = self.folder / f"{name}.data"
        if not path.exists():
            path.mkdir()
            os.chown(path, owner, USER)
            path.chmod(mode)
        return path

    def move(self, n):
        """The next container there has another address."""
        space, old = f"{self.tag}-{n}", self.address(n)
        self.places[n] = 100 + n
        ip(f"-n {space} addr del {old}/24 dev eth0")
        ip(f"-n {space} addr add {self.address(n)}/24 dev eth0")

    def run(self, name, n, env, args, volumes, files):
        space = f"{self.tag}-{n}"
        if space not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.split():
            ip(f"netns add {space}")
            ip(f"-n {self.tag} link add v{n} type veth peer name eth0 netns {space}")
            ip(f"-n {self.tag} link set v{n} master br0 up")
            ip(f"-n {space} addr add {self.address(n)}/24 dev eth0")
            ip(f"-n {space} link set eth0 up")
            ip(f"-n {space} link set lo up")
        files = [*files, (self.folder / "resolv.conf", "/etc/resolv.conf")]
        self.containers[name] = (space, env, [*volumes, ("/dev", "/dev")], files)
        log = open(self.folder / f"{name}.log", "a")
        command = self.command(name, args)
        self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def command(self, name, args):
        space, env, volumes, files = self.containers[name]
        at = self.folder / f"{name}.root"
        at.mkdir(exist_ok=True)
        lines = [f"mount --rbind {self.root} {at}"]
        for source, target in volumes:
            (self.root / target.lstrip("/")).mkdir(parents=True, exist_ok=True)
            lines.append(f"mount --bind {source} {at}{target}")
        for source, target in files:
            inside = self.root / target.lstrip("/")
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()
            lines.append(f"mount --bind {source} {at}{target}")
        lines += [f"mount -o remount,ro,bind {at}", f"mount -t tmpfs tmpfs {at}/tmp", f"mount -t proc proc {at}/proc"]
        given = shlex.join(f"{key}={value}" for key, value in env.items())
        lines.append(f"exec setpriv --no-new-privs env -i {given} {shutil.which('chroot')} --userspec={USER}:{USER} "
                     f"--groups={USER} {at} /usr/local/bin/taskmesh {args}")
        inside = ["unshare", "-m", "--propagation", "private", "sh", "-ec", "\n".join(lines)]
        return ["ip", "netns", "exec", space, *inside]

    def call(self, name, args):
        """As `docker compose exec` and `kubectl exec` do."""
        return subprocess.run(self.command(name, args), capture_output=True, text=True, timeout=60)

    def json(self, name, args):
        done = self.call(name, f"--json {args}")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def get(self, n, port, path, scheme="http"):
        """From outside the container: the status, and what it says."""
        url = f"{scheme}://{self.address(n)}:{port}{path}"
        command = ["ip", "netns", "exec", self.tag, "curl", "-sk", "--max-time", "2", "-w", "\n%{http_code}", url]
        body, _, status = subprocess.run(command, capture_output=True, text=True).stdout.rpartition("\n")
        return int(status or 0), body

    def targets(self, n):
        """What Prometheus finds through one of them."""
        status, body = self.get(n, 4781, "/sd")
        return {target for entry in json.loads(body) for target in entry["targets"]} if status == 200 else set()

    def stop(self, name, grace, meanwhile=lambda: None):
        began = time.monotonic()
        self.processes[name].send_signal(signal.SIGTERM)
        meanwhile()
        status = self.processes[name].wait(grace)
        assert status == 0, f"{name} ended with {status}"
        return time.monotonic() - began

    def close(self):
        for process in [*self.processes.values(), self.dns]:
            if process:
                end(process)
        for space in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.split():
            if space == self.tag or space.startswith(f"{self.tag}-"):
                ip(f"netns del {space}")


def make_root(binary, root):
    """What the image has: the binary, the libraries that it needs, and users. The
    certificates of authorities that distroless images bring are left out: a node
    has no need of them."""
    for folder in ["usr/local/bin", "etc", "tmp", "proc", "dev", "home/nonroot"]:
        (root / folder).mkdir(parents=True)
    shutil.copy(binary, root / "usr/local/bin/taskmesh")
    linked = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+) \(0x", linked):
        (root / library.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(library), root / library.lstrip("/"))
    (root / "etc/passwd").write_text(f"nonroot:x:{USER}:{USER}::/home/nonroot:/sbin/nologin\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
    return root


def serve_names(names):
    """A DNS server that knows the A records of `names`."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((DNS, 53))
    while True:
        question, peer = server.recvfrom(4096)
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += question[at] + 1
        address, kind = names.get(".".join(labels).lower()), struct.unpack(">H", question[at + 1 : at + 3])[0]
        told = address is not None and kind == 1
        answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + socket.inet_aton(address) if told else b""
        flags = 0x8580 if address else 0x8583
        head = question[:2] + struct.pack(">HHHHH", flags, 1, int(told), 0, 0)
        server.sendto(head + question[12 : at + 5] + answer, peer)


def ip(arguments):
    subprocess.run(["ip", *arguments.split()], check=True)


def end(process):
    process.kill()
    process.wait()


def until(what, holds, within=60):
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.2)


if __name__ == "__main__":
    if sys.argv[1] == "--dns":
        serve_names(json.loads(sys.argv[2]))
    else:
        main(sys.argv[1], pathlib.Path(sys.argv[2]).resolve())
