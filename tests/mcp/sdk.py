"""The official Python SDK of MCP against a running node.

    python sdk.py http  --url URL --token-file FILE --viewer-file FILE
    python sdk.py stdio --binary TASKMESH --data-dir FOLDER --viewer-file FILE

For both eras of the protocol: connects, lists the tools, submits a task, waits
for its result, reads its status, subscribes to it, reads resources and prompts,
and meets a refusal, bad arguments, a question to the user and, with a token that
may only look, what it lacks. The SDK holds every answer against the tool's output
schema. Exit status 0: all of that went well.
"""

import argparse
import asyncio
import json
import pathlib
import uuid
import warnings

import httpx2
import scenario as common
from mcp import Client, StdioServerParameters, types
from mcp.client.streamable_http import streamable_http_client

# The era that it is deprecated in is not the one that it is used in.
warnings.filterwarnings("ignore", message="resources/subscribe is removed")

OFFERED = [
    "task_submit", "task_status", "task_cancel", "task_list", "task_priority", "task_result",
    "queue_stats", "queue_pause", "queue_resume", "queue_clear", "task_retry",
    "worker_register", "worker_unregister", "worker_status",
    "workflow_submit", "workflow_status", "workflow_cancel", "workflow_list", "workflow_dependencies", "workflow_result",
    "peer_discover", "peer_connect", "peer_disconnect", "peer_list", "peer_metrics", "bootstrap_network",
]
TERMINAL = {"completed", "failed", "cancelled", "expired"}


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


async def answer(client, name, arguments):
    """The content of an answer that must be a success."""
    result = await client.call_tool(name, arguments)
    content = result.structured_content
    check(not result.is_error and content["success"] is True, f"{name}: {content}")
    check(json.loads(result.content[0].text) == content, f"{name}: the text differs from the content")
    return content


async def refusal(client, name, arguments):
    """The content of an answer that must be a failure."""
    result = await client.call_tool(name, arguments)
    content = result.structured_content
    check(result.is_error and content["success"] is False, f"{name}: {content}")
    return content


async def ended(client, task_id):
    """What a task left, once it has ended."""
    for _ in range(20):
        left = await answer(client, "task_result", {"task_id": task_id, "wait_ms": 5000, "include_logs": True})
        if left["status"] in TERMINAL:
            return left
    raise SystemExit(f"FAILED: {task_id} has not ended")


async def lists(client):
    tools = (await client.list_tools()).tools
    names = [tool.name for tool in tools]
    check(names == OFFERED, f"other tools than expected: {names}")
    for tool in tools:
        says = (tool.title, tool.description, tool.output_schema, tool.annotations)
        check(all(says), f"{tool.name} says too little")
    return len(json.dumps([tool.model_dump(by_alias=True, exclude_none=True) for tool in tools]))


async def runs_a_task(client):
    said = {"greeting": "grün", "numbers": [1, 2.5, None]}
    task_id = f"sdk-{uuid.uuid4()}"
    work = {"task_type": "echo", "payload": said, "task_id": task_id, "tags": ["sdk"]}
    taken = await answer(client, "task_submit", work)
    check(taken["task_id"] == task_id and taken["replayed"] is False, f"{taken}")
    again = await answer(client, "task_submit", work)
    check(again["replayed"] is True, f"a repetition was new work: {again}")
    left = await ended(client, task_id)
    check(left["status"] == "completed" and left["result"] == said, f"{left}")
    status = await answer(client, "task_status", {"task_id": task_id, "include_metrics": True, "explain": True})
    check(status["status"] == "completed" and status["attempt"] == 1 and status["end_time"], f"{status}")
    listed = await answer(client, "task_list", {"tag_filter": ["sdk"], "status_filter": "completed", "limit": 1000})
    check(task_id in [task["task_id"] for task in listed["tasks"]], "the task is not listed")


async def runs_an_array(client):
    items = [{"n": n} for n in range(10)]
    taken = await answer(client, "task_submit", {"task_type": "echo", "payload": {"all": True}, "items": items})
    check(taken["array"] == {"first": f"{taken['task_id']}/0", "count": 10}, f"{taken}")
    lefts = await asyncio.gather(*(ended(client, f"{taken['task_id']}/{n}") for n in range(10)))
    check([left["result"] for left in lefts] == [{"all": True, "n": n} for n in range(10)], f"{lefts}")


async def hears_of_an_end(client, told):
    """Subscribes to a task, in the form of the era, and reads it until it ended."""
    taken = await answer(client, "task_submit", {"task_type": "sleep", "payload": {"ms": 300}})
    uri = f"mesh://tasks/{taken['task_id']}"

    async def is_over():
        return json.loads((await client.read_resource(uri)).contents[0].text)["status"] == "completed"

    if client.protocol_version >= "2026-07-28":
        async with client.listen(resource_subscriptions=[uri]) as news:
            async for _ in news:
                if await is_over():
                    return
        raise SystemExit("FAILED: the subscription ended before the task")
    await client.subscribe_resource(uri)
    while not await is_over():
        await asyncio.wait_for(told.wait(), 30)
        told.clear()


async def asks_for_prompts(client):
    prompts = (await client.list_prompts()).prompts
    check(len(prompts) == 4, f"{prompts}")
    said = await client.get_prompt("diagnose_mesh")
    facts = [m.content.resource for m in said.messages if m.content.type == "resource"]
    check([str(f.uri) for f in facts] == ["mesh://queue", "mesh://workers", "mesh://peers"], f"{said}")
    check(all(json.loads(f.text) for f in facts), f"{facts}")


async def is_refused(client):
    missing = await refusal(client, "task_status", {"task_id": "no-such-task"})
    check(missing["code"] == "not_found" and missing["task_id"] == "no-such-task", f"{missing}")
    unknown = await refusal(client, "task_status", {"task_id": "x", "explian": True})
    check(unknown["code"] == "invalid_argument" and "explain" in unknown["error"], f"{unknown}")
    range_ = await refusal(client, "task_list", {"limit": 1001})
    check("1000" in range_["error"], f"{range_}")
    await common.bad_arguments(caller(client))


def caller(client):
    async def call(name, arguments):
        result = await client.call_tool(name, arguments)
        return result.is_error, result.structured_content, result.content[0].text

    return call


async def looks(connect, mode):
    """With a viewer's token."""
    async with connect(mode, None, None) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        check("task_status" in tools and "task_submit" not in tools, f"{tools}")
        await common.may_only_look(caller(client))
        print(f"{mode}, a viewer: {len(tools)} tools, refused clearly")


async def reads_the_mesh(client):
    for name in ("queue_stats", "peer_list"):
        await answer(client, name, {})
    stats = await answer(client, "queue_stats", {"include_worker_stats": True, "include_historical": True})
    check(stats["nodes_answered"] >= 1 and stats["worker_stats"], f"{stats}")
    worker = stats["worker_stats"][0]["worker_id"]
    asked = {"worker_id": worker, "include_tasks": True, "include_metrics": True}
    status = await answer(client, "worker_status", asked)
    check(status["worker_id"] == worker and status["metrics"] is not None, f"{status}")
    await answer(client, "peer_discover", {"timeout": 1, "include_metrics": True})


async def scenario(connect, mode):
    questions = []
    told = asyncio.Event()

    async def hear(message):
        if isinstance(message, types.ResourceUpdatedNotification):
            told.set()

    async def user(_context, params):
        questions.append(params.message)
        return types.ElicitResult(action="decline")

    async with connect(mode, user, hear) as client:
        size = await lists(client)
        await runs_a_task(client)
        await runs_an_array(client)
        await is_refused(client)
        await reads_the_mesh(client)
        await hears_of_an_end(client, told)
        await asks_for_prompts(client)
        declined = await refusal(client, "queue_clear", {})
        check(declined["code"] == "confirmation_required" and len(questions) == 1, f"{declined} {questions}")
        print(f"{mode}: {client.protocol_version}, {len(OFFERED)} tools in {size} bytes: well")


def over_http(url, token):
    def connect(mode, user, hear):
        headers = {"Authorization": f"Bearer {token}"}
        http = httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False)
        client = streamable_http_client(url, http_client=http)
        return Client(client, mode=mode, elicitation_callback=user, message_handler=hear)

    return connect


def over_stdio(binary, folder, env=None):
    def connect(mode, user, hear):
        server = StdioServerParameters(command=binary, args=["mcp", "--data-dir", folder], env=env)
        return Client(server, mode=mode, elicitation_callback=user, message_handler=hear)

    return connect


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    transports = parser.add_subparsers(dest="transport", required=True)
    http = transports.add_parser("http")
    http.add_argument("--url", required=True)
    http.add_argument("--token-file", required=True, type=pathlib.Path)
    stdio = transports.add_parser("stdio")
    stdio.add_argument("--binary", required=True)
    stdio.add_argument("--data-dir", required=True)
    for transport in (http, stdio):
        transport.add_argument("--viewer-file", required=True, type=pathlib.Path)
    given = parser.parse_args()
    viewer = given.viewer_file.read_text().strip()
    if given.transport == "http":
        connect, look = (over_http(given.url, token) for token in (given.token_file.read_text().strip(), viewer))
    else:
        connect = over_stdio(given.binary, given.data_dir)
        look = over_stdio(given.binary, given.data_dir, {"TASKMESH_TOKEN": viewer})
    for mode in ("auto", "legacy"):
        await asyncio.wait_for(scenario(connect, mode), 120)
        await asyncio.wait_for(looks(look, mode), 60)


asyncio.run(main())
