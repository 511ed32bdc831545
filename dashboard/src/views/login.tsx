// Who shows no token sees nothing of the mesh.

import { useState } from "preact/hooks";
import { enter, refused } from "../session.ts";
import { Glyph } from "../parts/basics.tsx";
import { Logo } from "../parts/shell.tsx";

export function Login() {
  const [bad, say] = useState(false);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    say(!enter(String(form.get("token") ?? "")));
  };
  return (
    <main class="login">
      <form class="card" onSubmit={submit}>
        <Logo />
        <h1>Open the dashboard</h1>
        <p>Run this on the machine of a node. It prints an address with a token that ends by itself:</p>
        <pre tabIndex={0} aria-label="Command">
          taskmesh dashboard
        </pre>
        {refused.value && (
          <p class="note tone-bad" role="alert">
            <Glyph status="failed" />
            <span>{refused.value}</span>
          </p>
        )}
        <label class="field">
          <span>Or paste a token</span>
          <input
            name="token"
            type="password"
            required
            autocomplete="off"
            spellcheck={false}
            placeholder="tmt_…"
            aria-invalid={bad}
          />
          {bad && (
            <small class="tone-bad" role="alert">
              A token is one line without spaces.
            </small>
          )}
        </label>
        <button type="submit" class="button solid">
          Open
        </button>
        <p class="dim small">It is kept in this tab alone, and goes nowhere but to this node.</p>
      </form>
    </main>
  );
}
