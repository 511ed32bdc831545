"""The Python SDK of MCP, version 1 (legacy era), against a running node.

    python legacy.py --url URL --token-file FILE --viewer-file FILE --binary TASKMESH --data-dir FOLDER

Over HTTP and over stdio: connects, lists, submits, waits, reads, subscribes to
a task, and is refused clearly, for its arguments and for a token that may only
look.
"""

import argparse
import asyncio
import pathlib

import scenario
from mcp import ClientSession, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client
from pydantic import AnyUrl


def caller(session):
    async def call(name, arguments):
        result = await session.call_tool(name, arguments)
        return result.isError, result.structuredContent, result.content[0].text

    return call


async def look(streams):
    read, write, *_ = streams
    async with ClientSession(read, write) as session:
        await session.initialize()
        tools = {tool.name for tool in (await session.list_tools()).tools}
        scenario.check("task_status" in tools and "task_submit" not in tools, f"{tools}")
        await scenario.may_only_look(caller(session))


async def talk(streams, transport):
    changed = asyncio.Event()

    async def hear(message):
        news = getattr(message, "root", None)
        if isinstance(news, types.ResourceUpdatedNotification):
            changed.set()

    read, write, *_ = streams
    async with ClientSession(read, write, message_handler=hear) as session:
        greeting = await session.initialize()
        call = caller(session)
        tools = (await session.list_tools()).tools
        scenario.check({"task_submit", "peer_list"} <= {tool.name for tool in tools}, f"{tools}")
        await scenario.works(call)
        prompts = (await session.list_prompts()).prompts
        said = await session.get_prompt(prompts[0].name)
        scenario.check(any(m.content.type == "resource" for m in said.messages), f"{said}")
        taken = await scenario.succeeds(call, "task_submit", {"task_type": "sleep", "payload": {"ms": 300}})
        uri = AnyUrl(f"mesh://tasks/{taken['task_id']}")
        await session.subscribe_resource(uri)
        for _ in range(20):
            await asyncio.wait_for(changed.wait(), 20)
            changed.clear()
            content = (await session.read_resource(uri)).contents[0].text
            if '"status":"completed"' in content:
                break
        else:
            raise SystemExit(f"FAILED: no news of the end: {content}")
        print(f"mcp 1 over {transport}: {greeting.protocolVersion}, {len(tools)} tools: well")


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token-file", required=True, type=pathlib.Path)
    parser.add_argument("--viewer-file", required=True, type=pathlib.Path)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--data-dir", required=True)
    given = parser.parse_args()
    bridge = ["mcp", "--data-dir", given.data_dir]

    def over_http(token):
        return streamablehttp_client(given.url, headers={"Authorization": f"Bearer {token}"})

    def over_stdio(env=None):
        return stdio_client(StdioServerParameters(command=given.binary, args=bridge, env=env))

    async with over_http(given.token_file.read_text().strip()) as streams:
        await asyncio.wait_for(talk(streams, "HTTP"), 120)
    async with over_stdio() as streams:
        await asyncio.wait_for(talk(streams, "stdio"), 120)
    viewer = given.viewer_file.read_text().strip()
    async with over_http(viewer) as streams:
        await asyncio.wait_for(look(streams), 60)
    async with over_stdio({"TASKMESH_TOKEN": viewer}) as streams:
        await asyncio.wait_for(look(streams), 60)
    print("mcp 1 with a viewer's token: refused clearly")


asyncio.run(main())
