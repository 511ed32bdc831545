"""A foreign task queue, made of py-libp2p, that a real node empties.

    python foreign_queue.py --binary TASKMESH

The queue speaks as ipfs_accelerate_py's does: a stream begins with `initialize`,
carries 128 frames and answers one after the other; `task_queue.rpc` answers in
`content`; nothing has a lease, and who completes a task is not asked. It loses
the answer to its first claim, is too busy for each tenth completion, and its
node is killed once and started again. A node that is started with this queue as
its source must complete every task, once. Exit status 0: it did.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import multiaddr
import trio
from libp2p import new_host
from libp2p.custom_types import TProtocol

PROTOCOL = TProtocol("/mcp+p2p/1.0.0")
FRAMES = 128
FRAME_BYTES = 1024 * 1024
TOKEN = "shared between the two"
TASKS = 200


class Lost(Exception):
    """The answer is not sent."""


class Queue:
    """Tasks by id, as that queue's table has them."""

    def __init__(self):
        self.tasks, self.streams, self.beats, self.claims, self.reports = {}, 0, 0, 0, 0
        self.completed = {}
        for n in range(TASKS):
            kind, payload = ("echo", {"n": n, "priority": 1 + n % 10}) if n else ("sleep", {"ms": 25_000})
            self.tasks[f"t{n}"] = {"task_id": f"t{n}", "task_type": kind, "model_name": "", "payload": payload,
                                   "created_at": 0.0, "status": "queued", "assigned_worker": None}

    def op(self, arguments):
        if arguments.get("token") != TOKEN:
            return {"ok": False, "error": "unauthorized"}
        match arguments["op"]:
            case "claim_many":
                claimed = self.with_status("queued", arguments["supported_task_types"])[: arguments["max_tasks"]]
                for task in claimed:
                    task |= {"status": "running", "assigned_worker": arguments["worker_id"]}
                self.claims += 1
                if self.claims == 1:
                    raise Lost
                return {"ok": True, "tasks": claimed}
            case "list":
                return {"ok": True, "tasks": self.with_status(arguments["status"], arguments["task_types"])}
            case "complete":
                task = self.tasks[arguments["task_id"]]
                self.reports += 1
                if self.reports % 10 == 0:
                    return {"ok": False, "task_id": task["task_id"]}
                task |= {"status": arguments["status"], "result": arguments.get("result")}
                self.completed[task["task_id"]] = self.completed.get(task["task_id"], 0) + 1
                return {"ok": True, "task_id": task["task_id"]}
            case "heartbeat":
                self.beats += 1
                return {"ok": bool(arguments["peer_id"]), "peer": arguments["peer_id"]}
        return {"ok": False, "error": f"unexpected: {arguments['op']}"}

    def with_status(self, status, types):
        return [task for task in self.tasks.values() if task["status"] == status and task["task_type"] in types]

    async def serve(self, stream):
        self.streams += 1
        try:
            await self.answer(stream)
        except Lost:
            await stream.reset()

    async def answer(self, stream):
        for frame in range(FRAMES):
            head = await stream.read(4)
            if not head:
                return
            length, body = int.from_bytes(head, "big"), b""
            while len(body) < length:
                body += await stream.read(length - len(body))
            message = json.loads(body)
            if frame == 0:
                assert message["method"] == "initialize", message
                result = {"ok": True, "limits": {"max_frame_bytes": FRAME_BYTES, "max_frames": FRAMES}}
            else:
                assert message["params"]["name"] == "task_queue.rpc", message
                result = {"content": self.op(message["params"]["arguments"])}
            reply = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
            await stream.write(len(reply).to_bytes(4, "big") + reply)

    def left(self):
        return [task for task in self.tasks.values() if task["status"] != "completed"]


class Node:
    """A node whose source of work is the queue."""

    def __init__(self, binary, folder, queue):
        self.binary, self.folder = binary, folder
        (folder / "token").write_text(TOKEN)
        settings = {"source.queue": queue, "source.types": "echo,sleep", "source.token_file": folder / "token",
                    "worker.slots": 4}
        flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
        loopback = ["--listen", "/ip4/127.0.0.1/tcp/0", "--api", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
        self.command = [binary, "up", "--data-dir", folder / "node", *loopback, *flags]
        self.start()

    def start(self):
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def tasks(self):
        listed = subprocess.run([self.binary, "--data-dir", self.folder / "node", "--json", "task", "list", "--limit", "1"],
                                capture_output=True, check=True, timeout=60)
        return json.loads(listed.stdout)["total_count"]

    def log(self):
        return (self.folder / "log").read_text()[-4000:]


async def until(condition, node):
    with trio.move_on_after(120):
        while not condition() and node.process.poll() is None:
            await trio.sleep(0.1)


async def main(options):
    queue, host = Queue(), new_host()
    with tempfile.TemporaryDirectory() as folder:
        async with host.run([multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            host.set_stream_handler(PROTOCOL, queue.serve)
            node = Node(options.binary, pathlib.Path(folder), str(host.get_addrs()[0]))
            try:
                # With claims that are held, also that of the long one.
                await until(lambda: len(queue.completed) > TASKS // 4, node)
                node.kill()
                node.start()
                await until(lambda: not queue.left(), node)
                known = await trio.to_thread.run_sync(node.tasks)
            finally:
                node.process.terminate()
                node.process.wait(60)
            if queue.left() or queue.beats == 0 or queue.streams < 3:
                told = f"{queue.left()[:3]}, {queue.beats} beats, {queue.streams} streams"
                raise SystemExit(f"FAILED: {told}\n{node.log()}")
    assert known == TASKS, f"{known} tasks of the mesh for {TASKS} of the queue"
    twice = {name: times for name, times in queue.completed.items() if times != 1}
    assert not twice, f"completed more than once: {twice}"
    assert all(task["result"] == task["payload"] for task in queue.tasks.values() if task["task_type"] == "echo")
    print(f"{TASKS} tasks, each completed once, over {queue.streams} streams, {queue.beats} heartbeats: well")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    trio.run(main, parser.parse_args())
