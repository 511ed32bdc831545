"""py-libp2p against a running node's door for peers.

    python p2p.py --door FILE --token-file FILE --viewer-file FILE

FILE is `door.json` of the node's data folder. Dials the node with py-libp2p
(TCP, Noise, Yamux), speaks each dialect of `/mcp+p2p/1.0.0`, does a task as a
foreign worker, and meets the refusals, also those of a token that may only look.
Exit status 0: all of that went well.
"""

import argparse
import json
import pathlib
import uuid

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.peerinfo import info_from_p2p_addr

PROTOCOL = TProtocol("/mcp+p2p/1.0.0")
MODERN = "2026-07-28"
VERSION = "io.modelcontextprotocol/protocolVersion"
TOKEN = "taskmesh/token"


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


class Line:
    """One stream: frames of four bytes of length and JSON."""

    def __init__(self, stream):
        self.stream = stream

    async def send(self, message):
        body = json.dumps(message).encode()
        await self.stream.write(len(body).to_bytes(4, "big") + body)

    async def read(self, count):
        data = b""
        while len(data) < count:
            piece = await self.stream.read(count - len(data))
            check(piece, f"the stream ended after {len(data)} of {count} bytes")
            data += piece
        return data

    async def next(self):
        length = int.from_bytes(await self.read(4), "big")
        return json.loads(await self.read(length))

    async def ask(self, message):
        await self.send(message)
        return await self.next()


class Door:
    """A node, as a host of one identity dials it."""

    def __init__(self, host, peer, token):
        self.host, self.peer, self.token = host, peer, token

    async def open(self):
        return Line(await self.host.new_stream(self.peer, [PROTOCOL]))

    def modern(self, id, method, params, token=True):
        meta = {VERSION: MODERN}
        if token:
            meta[TOKEN] = self.token
        return {"jsonrpc": "2.0", "id": id, "method": method, "params": {**params, "_meta": meta}}

    async def op(self, line, arguments):
        """One op of the queue, as ipfs_accelerate_py's clients send it."""
        params = {"name": "task_queue.rpc", "arguments": {**arguments, "token": self.token}}
        reply = await line.ask({"jsonrpc": "2.0", "id": str(uuid.uuid4()), "method": "tools/call", "params": params})
        check("result" in reply, f"{arguments['op']}: {reply}")
        return reply["result"]["content"]


async def sessionless(door):
    line = await door.open()
    found = (await line.ask(door.modern(1, "server/discover", {}, token=False)))["result"]
    check(found["supportedVersions"] == [MODERN], found)
    reply = await line.ask(door.modern(2, "tools/list", {}, token=False))
    check(reply["error"]["code"] == -32001, f"without a token: {reply}")
    tools = (await line.ask(door.modern(3, "tools/list", {})))["result"]["tools"]
    check("task_submit" in [tool["name"] for tool in tools], tools)
    id = f"py-{uuid.uuid4()}"
    arguments = {"task_id": id, "task_type": "echo", "payload": {"n": 7}}
    # Two at once: the ids tell the answers apart.
    await line.send(door.modern("submit", "tools/call", {"name": "task_submit", "arguments": arguments}))
    await line.send(door.modern("stats", "tools/call", {"name": "queue_stats", "arguments": {}}))
    replies = {reply["id"]: reply["result"] for reply in [await line.next(), await line.next()]}
    check(replies["submit"]["structuredContent"]["success"] and replies["stats"]["structuredContent"]["success"], replies)
    wait = {"name": "task_result", "arguments": {"task_id": id, "wait_ms": 20000}}
    done = (await line.ask(door.modern(4, "tools/call", wait)))["result"]["structuredContent"]
    check(done["status"] == "completed" and done["result"] == {"n": 7}, done)
    bad = {"name": "task_status", "arguments": {"task_id": id, "explian": True}}
    failure = (await line.ask(door.modern(5, "tools/call", bad)))["result"]
    check(failure["isError"] and failure["structuredContent"]["code"] == "invalid_argument", failure)
    cids = (await line.ask(door.modern(6, "interfaces/list", {})))["result"]["interfaces"]
    got = (await line.ask(door.modern(7, "interfaces/get", {"interface_cid": cids[0]})))["result"]
    check(json.loads(got["canonical"]) == got["descriptor"], "the descriptor is its canonical text")
    print("sessionless: ok,", cids[0])


async def legacy(door):
    line = await door.open()
    hello = {"clientInfo": {"name": "p2p.py", "version": "1"}, "profiles": ["mcp++/p2p-transport"]}
    greeting = (await line.ask({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}))["result"]
    check(greeting["ok"] and greeting["limits"]["max_frame_bytes"] > 0, greeting)
    check(greeting["server"]["peer_id"] == door.peer.to_string(), greeting)
    reply = await line.ask({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}})
    check(reply["error"]["code"] == -32001, f"a greeting without a token is no authority: {reply}")
    line = await door.open()
    hello["token"] = door.token
    await line.ask({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
    reply = await line.ask({"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}})
    check("task_queue.rpc" in [tool["name"] for tool in reply["result"]["tools"]], reply)
    print("legacy: ok")


async def envelope(door):
    line = await door.open()
    request = {"type": "request", "method": "queue_stats", "params": {"token": door.token}, "id": "e-1",
               "result": None, "error": None, "sender": door.host.get_id().to_string(), "timestamp": 0.0}
    reply = await line.ask(request)
    check(reply["type"] == "response" and reply["id"] == "e-1" and reply["error"] is None, reply)
    check(reply["result"]["success"], reply)
    try:
        more = await line.stream.read(1)
    except StreamError:
        more = b""
    check(more == b"", "the stream is over after one answer")
    print("envelope: ok")


async def greeted(door):
    line = await door.open()
    hello = {"clientInfo": {"name": "worker", "version": "1"}, "profiles": ["mcp++/p2p-transport"]}
    await line.ask({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
    return line


async def worker(door, thief):
    kind = f"py-{uuid.uuid4()}"
    line = await greeted(door)
    submit = {"op": "submit", "task_type": kind, "model_name": "m", "payload": {"prompt": "x", "priority": 7}}
    task_id = (await door.op(line, submit))["task_id"]
    task = None
    with trio.fail_after(30):
        while task is None:
            claim = {"op": "claim", "worker_id": "py-worker", "supported_task_types": [kind]}
            answer = await door.op(line, claim)
            check(answer["ok"], answer)
            task = answer["task"]
    check(task["mesh_task_id"] == task_id and task["payload"]["prompt"] == "x" and task["model_name"] == "m", task)
    shown = (await door.op(line, {"op": "get", "task_id": task_id}))["task"]
    check(shown["status"] == "running" and shown["assigned_worker"] == "py-worker", shown)
    complete = {"op": "complete", "task_id": task_id, "status": "completed", "result": {"text": "stolen"}}
    refused = await thief.op(await greeted(thief), complete)
    check(not refused["ok"] and refused["error"] == "not_lease_holder", refused)
    beat = await door.op(line, {"op": "heartbeat", "task_id": task["task_id"]})
    check(beat["ok"], beat)
    # As those clients do it: a new identity, and the id of the claim.
    complete = {"op": "complete", "task_id": task["task_id"], "status": "completed", "result": {"text": "y"}}
    done = await thief.op(await greeted(thief), complete)
    check(done["ok"] and done["status"] == "completed", done)
    got = (await door.op(line, {"op": "wait", "task_id": task_id, "timeout_s": 20}))["task"]
    check(got["status"] == "completed" and got["result"] == {"text": "y"}, got)
    print("worker: ok,", task_id)


async def cache(door, other):
    """Values that callers keep under keys of their own, read by another peer."""
    line, key = await greeted(door), f"py-{uuid.uuid4()}"
    check((await door.op(line, {"op": "cache.get", "key": key}))["hit"] is False, "nothing yet")
    for value in ({"n": [1, None]}, "newer"):
        kept = await door.op(line, {"op": "cache.set", "key": key, "value": value, "ttl_s": 600.0})
        check(kept["ok"] and kept["expires_at"] > 0, kept)
        found = await other.op(await greeted(other), {"op": "cache.get", "key": key})
        check(found["hit"] and found["value"] == value, found)
    check((await door.op(line, {"op": "cache.has", "key": key}))["hit"], "it is there")
    gone = await door.op(line, {"op": "cache.delete", "key": key})
    check(gone["deleted"] and gone["silent_nodes"] == [], gone)
    check(not (await door.op(line, {"op": "cache.has", "key": key}))["hit"], "it is gone")
    large = await door.op(line, {"op": "cache.set", "key": key, "value": "x" * 16384})
    check(not large["ok"] and large["error"] == "invalid_argument", large)
    print("cache: ok")


async def abuse(door):
    for data, word in [(b"\0\0\0\0", "empty_frame"), (b"\xff\xff\xff\xff", "frame_too_large"),
                       (b"\0\0\0\2\xc3\x28", "invalid_json")]:
        line = await door.open()
        await line.stream.write(data)
        reply = await line.next()
        check(reply["error"]["code"] == -32003 and reply["error"]["message"] == word, reply)
    print("abuse: ok")


async def viewer(door):
    """A token that may only look: each dialect says what it lacks."""
    line = await door.open()
    submit = {"name": "task_submit", "arguments": {"task_type": "echo", "payload": {}}}
    refused = (await line.ask(door.modern(1, "tools/call", submit)))["result"]
    said = refused["structuredContent"]
    check(refused["isError"] and said["code"] == "permission_denied" and "the role submitter" in said["error"], refused)
    looked = (await line.ask(door.modern(2, "tools/call", {"name": "queue_stats", "arguments": {}})))["result"]
    check(looked["structuredContent"]["success"], looked)
    line = await door.open()
    hello = {"clientInfo": {"name": "p2p.py", "version": "1"}, "token": door.token}
    await line.ask({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
    for arguments, needed in [
        ({"op": "submit", "task_type": "echo", "payload": {}}, "submitter"),
        ({"op": "claim", "worker_id": "w", "supported_task_types": ["echo"]}, "operator"),
        ({"op": "cache.set", "key": "k", "value": 1}, "submitter"),
    ]:
        answer = await door.op(line, arguments)
        check(not answer["ok"] and answer["error"] == "permission_denied" and needed in answer["detail"], answer)
    check((await door.op(line, {"op": "status"}))["ok"], "a viewer looks")
    line = await door.open()
    asked = {"type": "request", "id": "e", "method": "task_submit", "params": {**submit["arguments"], "token": door.token}}
    envelope = await line.ask(asked)
    check("the role submitter" in envelope["error"], envelope)
    print("a viewer: refused clearly")


async def main(options):
    told = json.loads(options.door.read_text())
    token = options.token_file.read_text().strip()
    info = info_from_p2p_addr(multiaddr.Multiaddr(told["multiaddr"]))
    hosts = [new_host(key_pair=create_new_key_pair()) for _ in range(2)]
    nowhere = [multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]
    with trio.fail_after(240):
        async with hosts[0].run(nowhere), hosts[1].run(nowhere):
            for host in hosts:
                await host.connect(info)
            doors = [Door(host, info.peer_id, token) for host in hosts]
            await sessionless(doors[0])
            await legacy(doors[0])
            await envelope(doors[0])
            await worker(*doors)
            await cache(*doors)
            await viewer(Door(hosts[0], info.peer_id, options.viewer_file.read_text().strip()))
            await abuse(doors[1])
    print("all went well")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--door", type=pathlib.Path, required=True)
    parser.add_argument("--token-file", type=pathlib.Path, required=True)
    parser.add_argument("--viewer-file", type=pathlib.Path, required=True)
    trio.run(main, parser.parse_args())
