"""FastMCP's client against a running node.

    python fast.py --url URL --token-file FILE --viewer-file FILE --binary TASKMESH --data-dir FOLDER

Over HTTP and over stdio: connects, lists, submits, waits, reads, and is refused
clearly, for its arguments and for a token that may only look.
"""

import argparse
import asyncio
import pathlib

import scenario
from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport


def caller(client):
    async def call(tool, arguments):
        result = await client.call_tool(tool, arguments, raise_on_error=False)
        return result.is_error, result.structured_content, result.content[0].text

    return call


async def look(transport):
    async with Client(transport) as client:
        tools = {tool.name for tool in await client.list_tools()}
        scenario.check("task_status" in tools and "task_submit" not in tools, f"{tools}")
        await scenario.may_only_look(caller(client))


async def talk(transport, name):
    async with Client(transport) as client:
        call = caller(client)
        tools = await client.list_tools()
        await scenario.works(call)
        queue = await client.read_resource("mesh://queue")
        scenario.check("queued_count" in queue[0].text, f"{queue}")
        prompt = await client.get_prompt("plan_fan_out", {"goal": "hash 100 files"})
        scenario.check(len(prompt.messages) == 3, f"{prompt}")
        print(f"FastMCP over {name}: {len(tools)} tools: well")


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
        return StreamableHttpTransport(given.url, headers={"Authorization": f"Bearer {token}"})

    def over_stdio(env=None):
        return StdioTransport(command=given.binary, args=bridge, env=env)

    await asyncio.wait_for(talk(over_http(given.token_file.read_text().strip()), "HTTP"), 120)
    await asyncio.wait_for(talk(over_stdio(), "stdio"), 120)
    viewer = given.viewer_file.read_text().strip()
    await asyncio.wait_for(look(over_http(viewer)), 60)
    await asyncio.wait_for(look(over_stdio({"TASKMESH_TOKEN": viewer})), 60)
    print("FastMCP with a viewer's token: refused clearly")


asyncio.run(main())
