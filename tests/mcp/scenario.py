"""What every client of the facade does, whichever library it is made of.

A client is adapted by one function, `call(name, arguments)`, that returns
whether the tool said that it failed, its structured content and its text.
"""

import json
import uuid

TERMINAL = {"completed", "failed", "cancelled", "expired"}


def check(condition, message):
    if not condition:
        raise SystemExit(f"FAILED: {message}")


async def succeeds(call, name, arguments):
    failed, content, text = await call(name, arguments)
    check(not failed and content["success"] is True, f"{name}: {content}")
    check(json.loads(text) == content, f"{name}: the text differs from the content")
    return content


async def fails(call, name, arguments):
    failed, content, _ = await call(name, arguments)
    check(failed and content["success"] is False, f"{name}: {content}")
    return content


async def ended(call, task_id):
    for _ in range(20):
        left = await succeeds(call, "task_result", {"task_id": task_id, "wait_ms": 5000})
        if left["status"] in TERMINAL:
            return left
    raise SystemExit(f"FAILED: {task_id} has not ended")


async def works(call):
    """Submits an echo and an exec task, waits, reads, and is refused clearly."""
    said = {"greeting": "grün", "numbers": [1, 2.5, None]}
    taken = await succeeds(call, "task_submit", {"task_type": "echo", "payload": said})
    left = await ended(call, taken["task_id"])
    check(left["status"] == "completed" and left["result"] == said, f"{left}")
    program = {"task_type": "exec", "payload": {"argv": ["echo", "from a program"]}, "task_id": f"exec-{uuid.uuid4()}"}
    taken = await succeeds(call, "task_submit", program)
    left = await ended(call, taken["task_id"])
    check(left["status"] == "completed" and left["output"] == "from a program\n", f"{left}")
    status = await succeeds(call, "task_status", {"task_id": taken["task_id"]})
    check(status["status"] == "completed" and status["attempt"] == 1, f"{status}")
    missing = await fails(call, "task_status", {"task_id": "no-such-task"})
    check(missing["code"] == "not_found" and missing["task_id"] == "no-such-task", f"{missing}")
    unknown = await fails(call, "task_status", {"task_id": "x", "explian": True})
    check(unknown["code"] == "invalid_argument" and "explain" in unknown["error"], f"{unknown}")
    wrong = await fails(call, "task_list", {"limit": 1001})
    check("1000" in wrong["error"], f"{wrong}")
    await bad_arguments(call)


async def bad_arguments(call):
    """What is missing, of another type or out of its range is named."""
    for arguments, named in [
        ({"task_type": "echo"}, "payload"),
        ({"payload": {}}, "task_type"),
        ({"task_type": "echo", "payload": "text"}, "payload"),
        ({"task_type": "echo", "payload": {}, "priority": -1}, "priority"),
    ]:
        refused = await fails(call, "task_submit", arguments)
        check(refused["code"] == "invalid_argument" and named in refused["error"], f"{arguments}: {refused}")


async def may_only_look(call):
    """A viewer's client reads, and is told what it lacks for more."""
    await succeeds(call, "queue_stats", {})
    refused = await fails(call, "task_submit", {"task_type": "echo", "payload": {}})
    check(refused["code"] == "permission_denied" and refused["retryable"] is False, f"{refused}")
    check("the role submitter" in refused["error"] and "viewer" in refused["error"], f"{refused}")
