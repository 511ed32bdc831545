// The dashboard of a mesh: a client of the node's MCP endpoint, and no more.

import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { start } from "./live.ts";
import { remember } from "./memory.ts";
import { Dialog } from "./parts/ask.tsx";
import { Empty, Toasts } from "./parts/basics.tsx";
import { dress, Shell } from "./parts/shell.tsx";
import { place, to } from "./route.ts";
import { begin, token } from "./session.ts";
import "./style.css";
import { Events } from "./views/events.tsx";
import { Login } from "./views/login.tsx";
import { Nodes, NodeView } from "./views/nodes.tsx";
import { Overview } from "./views/overview.tsx";
import { TaskPageView } from "./views/task.tsx";
import { Tasks } from "./views/tasks.tsx";
import { Workflows, WorkflowView } from "./views/workflows.tsx";

function View() {
  const [view, ...rest] = place.value.path;
  const id = rest.join("/");
  switch (view) {
    case undefined:
      return <Overview />;
    case "tasks":
      return id ? <TaskPageView key={id} id={id} /> : <Tasks />;
    case "workflows":
      return id ? <WorkflowView key={id} id={id} /> : <Workflows />;
    case "nodes":
      return id ? <NodeView key={id} id={id} /> : <Nodes />;
    case "events":
      return <Events />;
    default:
      return (
        <Empty title="There is nothing here">
          <a href={to([])}>To the overview</a>
        </Empty>
      );
  }
}

const TITLES: Record<string, string> = { tasks: "Tasks", workflows: "Workflows", nodes: "Nodes", events: "Events" };

function App() {
  const { path } = place.value;
  const first = useRef(true);
  const where = path.join("/");
  useEffect(() => {
    const title = path[1] ?? TITLES[path[0] ?? ""] ?? "Overview";
    document.title = `${title} · taskmesh`;
    // A new view is read from its beginning, by eyes and by screen readers.
    if (!first.current) {
      document.getElementById("main")?.focus({ preventScroll: true });
      scrollTo({ top: 0 });
    }
    first.current = false;
  }, [where]);
  if (token.value === null) return <Login />;
  return (
    <>
      <Shell>
        <View />
      </Shell>
      <Dialog />
      <Toasts />
    </>
  );
}

begin();
dress();
start();
remember();
const host = document.getElementById("app");
if (host) render(<App />, host);
