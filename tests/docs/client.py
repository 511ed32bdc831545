"""A client of MCP that is set up with a block of JSON, as applications are:

    python client.py FILE

`mcpServers` or `servers` names servers; each is started, or called at its URL,
and must offer tools and answer `queue_stats`. TOKEN and `${input:…}` stand for
a token that the reader has: the one in the environment's TOKEN.
"""

import asyncio
import json
import os
import pathlib
import re
import sys

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client


async def answers(name, transport):
    async with Client(transport) as client:
        tools = (await client.list_tools()).tools
        stats = await client.call_tool("queue_stats", {})
        if not tools or stats.is_error:
            raise SystemExit(f"FAILED: {name}: {len(tools)} tools, {stats}")
        print(f"{name}: {len(tools)} tools")


async def main(path):
    text = re.sub(r"\$\{input:[\w-]+\}|\bTOKEN\b", os.environ.get("TOKEN", ""), pathlib.Path(path).read_text())
    settings = json.loads(text)
    for name, server in (settings.get("mcpServers") or settings["servers"]).items():
        if "command" in server:
            parameters = StdioServerParameters(command=server["command"], args=server["args"], env=dict(os.environ))
            await answers(name, parameters)
        else:
            http = httpx2.AsyncClient(headers=server["headers"], timeout=60, trust_env=False)
            await answers(name, streamable_http_client(server["url"], http_client=http))


asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
