"""FastMCP's client against a running node.

    python fast.py --url URL --token-file FILE --binary TASKMESH --data-dir FOLDER

Over HTTP and over stdio: connects, lists, submits, waits, reads, and is refused
clearly.
"""

import argparse
import asyncio
import pathlib

import scenario
from fastmcp import Client
from fastmcp.client.transports import StdioTransport, StreamableHttpTransport


async def talk(transport, name):
    async with Client(transport) as client:

        async def call(tool, arguments):
            result = await client.call_tool(tool, arguments, raise_on_error=False)
            return result.is_error, result.structured_content, result.content[0].text

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
    parser.add_argument("--binary", required=True)
    parser.add_argument("--data-dir", required=True)
    given = parser.parse_args()
    headers = {"Authorization": f"Bearer {given.token_file.read_text().strip()}"}
    await asyncio.wait_for(talk(StreamableHttpTransport(given.url, headers=headers), "HTTP"), 120)
    stdio = StdioTransport(command=given.binary, args=["mcp", "--data-dir", given.data_dir])
    await asyncio.wait_for(talk(stdio, "stdio"), 120)


asyncio.run(main())
