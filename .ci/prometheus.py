"""A real Prometheus watches three real nodes: .ci/prometheus.py BINARY FOLDER.

It finds all three through /sd of two of them, every rule and every expression of
the dashboards evaluates, and when one node is killed the alerts for that fire.
The rules are those of deploy/, but for how long a condition must hold.
"""

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

TREE = pathlib.Path(__file__).resolve().parent.parent
BRISK = ["mesh.beat_ms=200", "mesh.lease_ms=1500", "mesh.stagger_ms=300", "mesh.away_ms=6000"]
RATE = "1m"
RUNS = f"sum(rate(taskmesh_runs_ended_total[{RATE}])) > 0"


def main(binary, folder):
    folder.mkdir(parents=True, exist_ok=True)
    processes = []
    try:
        nodes = start_nodes(binary, folder, processes)
        api = start_prometheus(folder, [node["metrics_url"] for node in nodes], processes)
        watch(binary, folder, nodes, api, processes)
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def watch(binary, folder, nodes, api, processes):
    addresses = sorted(node["metrics_url"].removeprefix("http://") for node in nodes)
    until("all three nodes are scraped", lambda: instances(api, 'up{job="taskmesh"} == 1') == addresses)
    print(f"found through /sd: {', '.join(addresses)}")
    until("runs are counted", lambda: work(binary, folder) and query(api, RUNS))
    check_rules(api)
    check_dashboards(api)
    firing = firing_alerts(api)
    assert not firing & {"TaskmeshNodeDown", "TaskmeshShortOfCopies"}, f"nothing is wrong yet: {firing}"

    victim = nodes[2]["metrics_url"].removeprefix("http://")
    began = time.monotonic()
    processes[2].kill()
    down = f'ALERTS{{alertname="TaskmeshNodeDown", alertstate="firing", instance="{victim}"}}'
    until("the alert for the killed node fires", lambda: query(api, down))
    print(f"TaskmeshNodeDown fires for {victim} {time.monotonic() - began:.1f} s after its kill")
    until("so does the one for missing copies", lambda: "TaskmeshShortOfCopies" in firing_alerts(api))
    print(f"TaskmeshShortOfCopies fires {time.monotonic() - began:.1f} s after the kill")
    check_rules(api)


def work(binary, folder):
    """One task through each node. A rate sees no first value of a counter, so what
    ended before a scrape doesn't count: there is work until some is seen."""
    for n in range(3):
        run(binary, folder / f"node{n}", "submit", "--type", "echo", "--payload", "{}", "--wait")
    return True


def start_nodes(binary, folder, processes):
    nodes = []
    for n in range(3):
        home = folder / f"node{n}"
        command = [binary, "up", "--data-dir", home, "--listen", "/ip4/127.0.0.1/tcp/0"]
        command += ["--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
        command += [part for setting in BRISK for part in ("--set", setting)]
        if nodes:
            command += ["--join", nodes[0]["invite"]]
        log = open(folder / f"node{n}.log", "w")
        processes.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        about = home / "node.json"
        until(f"node {n} is up", lambda: about.exists(), processes[-1])
        nodes.append(json.loads(about.read_text()))
    return nodes


def start_prometheus(folder, urls, processes):
    config = (TREE / "deploy/prometheus/prometheus.yml").read_text()
    config = re.sub(r"(scrape|evaluation)_interval: \S+", r"\1_interval: 1s", config)
    targets = "".join(f"      - url: {url}/sd\n        refresh_interval: 1s\n" for url in urls[:2])
    config, found = re.subn(r"      - url: \S+\n        refresh_interval: \S+\n", targets, config)
    assert found == 1, "deploy/prometheus/prometheus.yml has one url"
    (folder / "prometheus.yml").write_text(config)
    (folder / "rules").mkdir(exist_ok=True)
    for rules in (TREE / "deploy/prometheus/rules").glob("*.yml"):
        text = re.sub(r"\bfor: \S+", "for: 2s", rules.read_text())
        (folder / "rules" / rules.name).write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log = open(folder / "prometheus.log", "w")
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    command += [f"--web.listen-address={address}"]
    processes.append(subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
    api = f"http://{address}"
    until("Prometheus is ready", lambda: fetch(f"{api}/-/ready") is not None, processes[-1])
    return api


def check_rules(api):
    def rules():
        groups = json.loads(fetch(f"{api}/api/v1/rules"))["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    until("every rule was evaluated", lambda: all(rule["health"] != "unknown" for rule in rules()))
    wrong = [f"{rule['name']}: {rule.get('lastError')}" for rule in rules() if rule["health"] != "ok"]
    assert rules() and not wrong, wrong
    print(f"{len(rules())} rules evaluate")


def check_dashboards(api):
    shown = {"expr": 0, "empty": []}
    for path in sorted((TREE / "deploy/grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"].replace("$__rate_interval", RATE)
                expression = expression.replace("$job", "taskmesh").replace("$instance", ".*")
                shown["expr"] += 1
                if not query(api, expression):
                    shown["empty"].append(f"{path.stem}: {panel['title']}")
    print(f"{shown['expr']} expressions of dashboards evaluate; without data, as nothing of that kind happened:")
    for panel in shown["empty"]:
        print(f"  {panel}")
    assert shown["expr"] and len(shown["empty"]) * 4 < shown["expr"], "most panels show something"


def firing_alerts(api):
    return {series["metric"]["alertname"] for series in query(api, 'ALERTS{alertstate="firing"}')}


def instances(api, expression):
    return sorted(series["metric"]["instance"] for series in query(api, expression))


def query(api, expression):
    answer = json.loads(fetch(f"{api}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))
    assert answer["status"] == "success", answer
    return answer["data"]["result"]


def fetch(url):
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        # What is wrong with a query stands in the body.
        raise AssertionError(f"{url}: {error.read().decode()}") from error
    except (urllib.error.URLError, ConnectionError):
        return None


def run(binary, folder, *command):
    subprocess.run([binary, *command, "--data-dir", folder], check=True, stdout=subprocess.DEVNULL, timeout=60)


def until(what, holds, process=None, within=60):
    deadline = time.monotonic() + within
    while not holds():
        assert process is None or process.poll() is None, f"a process ended before {what}; see the logs"
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]).resolve())
