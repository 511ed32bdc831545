"""Runs what the documents tell their readers to type.

    python3 tests/docs/run.py BINARY [--have NAME=FOLDER]… [PAGE…]

Of README.md, the book and the templates, each page by itself and from top to
bottom: one shell, in a new folder that is also its home and has `config` and
`deploy` of the tree, with the binary on its PATH, in namespaces of its own, so
that nodes may listen where they always do, meet nobody else, and are gone with
the page. What the first line of a block says beside its language:

    sh                   is run; the first command that fails ends the page
    console              the same for each line after `$ `, whose output must then
                         be the lines that follow, as `Expected` compares them
    background           it stays: what follows begins when its nodes are ready
    not-run="reason"     can't be run here; the reason is printed
    run-by="file"        another step runs it: each of its lines stands in that file
    file="name"          a block of any language: is written into that file
    client="settings"    JSON that a client of MCP is set up with: it connects so
    with="name"          python, js or sh: is run with the libraries in a folder that is
                         given: an environment of Python, or for `node` what .ci/npm fills

`<!-- run: … -->` is run and not shown: what a reader has done before; $TREE is
the tree. Commands within sentences are held against the command line, and not
run. Exit status 0: all of that went well.
"""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ATTRIBUTES = {"background", "not-run", "run-by", "file", "client", "with"}
ENDINGS = {"python": "py", "js": "mjs", "json": "json"}
# For one command of a page, on a machine that does much else.
BLOCK_S = 300


# Pages that must fail, and what is said of them.
PLANTED = [
    ("```sh\ntrue\nfalse\ntrue\n```", "this failed"),
    ("```sh\nexport MISSING\necho $MISSING_TOO\n```", "unbound variable"),
    ("```console\n$ echo 2 nodes\n3 nodes\n```", "the page shows"),
    ("```console\n$ printf 'a\\nb\\n'\na\n```", "the page shows"),
    ("```sh background\ntaskmesh up --no-such-flag\n```", "no node came up"),
    ("```sh run-by=\"Makefile\"\nmake what-is-not-there\n```", "does not run"),
    ("```sh not-rum=\"why\"\ntrue\n```", "means nothing"),
    ("Say `taskmesh task wait --no-such-flag ID`.", "is no command"),
    ("Say `taskmesh no-such-command`.", "is no command"),
]


class Wrong(Exception):
    """What a page says is not so."""


class Block:
    def __init__(self, line, language, attributes, text):
        self.line, self.language, self.attributes, self.text = line, language, attributes, text

    def commands(self):
        """Pairs of a command and the lines that it should print, or None."""
        if self.language != "console":
            return [(self.text, None)]
        found = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif not found:
                raise Wrong(f"line {self.line}: output before the first command")
            elif not found[-1][1] and found[-1][0].endswith("\\"):
                found[-1] = (f"{found[-1][0]}\n{line}", [])
            else:
                found[-1][1].append(line)
        return found


def blocks_of(text):
    """The blocks of a page and what is run unseen, in order."""
    found, lines, n = [], text.splitlines(), 0
    while n < len(lines):
        start, indent = n, len(lines[n]) - len(lines[n].lstrip())
        opening = re.match(r"\s*```(\S*)\s*(.*)$", lines[n])
        hidden = re.match(r"<!-- run:(.*)$", lines[n])
        n += 1
        if opening:
            end = next(i for i in range(n, len(lines)) if lines[i].strip() == "```")
            body = "\n".join(line[indent:] for line in lines[n:end])
            found.append(Block(start + 1, opening[1], attributes_of(opening[2], start + 1), body))
            n = end + 1
        elif hidden:
            end = next(i for i in range(start, len(lines)) if lines[i].endswith("-->"))
            body = "\n".join([hidden[1], *lines[n:end + 1]]).removesuffix("-->")
            found.append(Block(start + 1, "sh", {"background": ""} if "taskmesh up" in body else {}, body))
            n = end + 1
    return found


def attributes_of(text, line):
    found = dict(part.partition("=")[::2] for part in shlex.split(text))
    strangers = set(found) - ATTRIBUTES
    if strangers:
        raise Wrong(f"line {line}: this block says {', '.join(strangers)}, which means nothing")
    return found


class Expected:
    """Output as a page shows it. `…` stands for the rest of a line, or alone for
    any lines; columns may be wider or narrower; names that a node makes up, times,
    spans, sizes and percentages may be others."""

    CHANGING = [
        (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"),
        (r"12D3KooW\w+", "PEER"),
        (r"\bworker-\w{8}\b", "WORKER"),
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b", "ID"),
        (r"\b[0-9a-f]{16,}\b", "HEX"),
        (r"\btaskmesh1\w+", "INVITE"),
        (r"\btmt_[\w-]+", "TOKEN"),
        (r"\b\d+(\.\d+)? (B|KiB|MiB|GiB)\b", "SIZE"),
        (r"\b\d+(\.\d+)? (µs|ms|s|min|h|d)\b", "SPAN"),
        (r"\b\d+ %", "PERCENT"),
        (r"\bprocess \d+", "PROCESS"),
        (r"\s+", " "),
    ]

    def __init__(self, lines):
        def pattern(line):
            return r"(?:.*\n)*" if line.strip() == "…" else ".*".join(map(re.escape, line.split("…"))) + r"\n"

        self.pattern = re.compile("".join(pattern(self.settled(line)) for line in lines))

    def settled(self, line):
        for changing, name in self.CHANGING:
            line = re.sub(changing, name, line)
        return line.strip()

    def is_met_by(self, output):
        lines = [self.settled(line) for line in output.rstrip().splitlines()]
        return self.pattern.fullmatch("".join(f"{line}\n" for line in lines)) is not None


class Shell:
    """One bash for a page: what a block exports, the next one has."""

    def __init__(self, home, environment):
        self.home, self.count = home, 0
        reader, writer = os.pipe()
        self.bash = subprocess.Popen(
            ["bash", "-c", 'set -euo pipefail; while read -r script; do . "$script"; done'],
            cwd=home, env={**environment, "SAYS": str(writer)}, stdin=subprocess.PIPE, pass_fds=[writer],
            stderr=subprocess.DEVNULL, text=True)
        os.close(writer)
        self.says = os.fdopen(reader)

    def run(self, text):
        """The status and the output of a script. A script that fails ends the shell."""
        script, output = self.script(text)
        try:
            well = self.ask(f'. {script} >{output} 2>&1 </dev/null; echo done >&"$SAYS"') == "done"
        except TimeoutError:
            raise Wrong(f"this took longer than {BLOCK_S} s: {text}\n{output.read_text(errors='replace')}") from None
        return well, output.read_text(errors="replace")

    def start(self, text):
        """Starts a script that stays, and waits for the nodes in it."""
        script, output = self.script(text)
        address = f"{script}.ready"
        ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        ready.bind(address)
        ready.settimeout(0.2)
        before = f'eval "exec $SAYS>&-"; export NOTIFY_SOCKET={address}'
        pid = self.ask(f'({before}; . {script} >{output} 2>&1 </dev/null) & echo $! >&"$SAYS"')
        wanted = len(re.findall(r"\btaskmesh\b.* up\b", text))
        deadline = time.monotonic() + BLOCK_S
        while wanted:
            try:
                wanted -= ready.recv(4096).startswith(b"READY=1")
            except TimeoutError:
                if time.monotonic() > deadline or not running(pid):
                    raise Wrong(f"no node came up:\n{output.read_text(errors='replace')}") from None
        return output

    def ask(self, command):
        self.count += 1
        asked = pathlib.Path(self.home, ".steps", f"{self.count}.ask")
        asked.write_text(command + "\n")
        self.bash.stdin.write(f"{asked}\n")
        self.bash.stdin.flush()
        signal.alarm(BLOCK_S)
        try:
            return self.says.readline().strip()
        finally:
            signal.alarm(0)

    def script(self, text):
        path = pathlib.Path(self.home, ".steps", str(self.count))
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
        return path, path.with_suffix(".out")


def running(pid):
    try:
        return pathlib.Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Page:
    def __init__(self, path, options, home):
        self.path, self.options, self.home = path, options, home
        self.ran, self.compared, self.checked, self.not_run = 0, 0, 0, []
        for part in ("config", "deploy"):
            shutil.copytree(ROOT / part, home / part)
        programs = home / ".programs"
        programs.mkdir()
        (programs / "taskmesh").symlink_to(options.binary)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKMESH_", "XDG_"))}
        self.environment = {**kept, "HOME": str(home), "PATH": f"{programs}:{kept['PATH']}", "NO_COLOR": "1",
                            "TREE": str(ROOT)}
        self.shell = Shell(home, self.environment)

    def follow(self):
        text = self.path.read_text()
        for block in blocks_of(text):
            try:
                self.take(block)
            except Wrong as wrong:
                raise Wrong(f"{self.name()}:{block.line}: {wrong}") from None
        self.check_sentences(text)

    def name(self):
        return os.path.relpath(self.path, ROOT)

    def take(self, block):
        said = block.attributes
        runs = block.language in ("sh", "console") or {"client", "with"} & set(said)
        if "file" in said:
            target = self.home / said["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text + "\n")
        if "not-run" in said:
            self.not_run.append((block.line, said["not-run"]))
        elif "run-by" in said:
            self.stands_elsewhere(block, ROOT / said["run-by"])
        elif "client" in said or "with" in said:
            self.run_with(said.get("with", "mcp"), block)
        elif "background" in said:
            self.shell.start(block.text)
            self.ran += 1
        elif runs:
            self.run(block)

    def run(self, block):
        for command, lines in block.commands():
            well, output = self.shell.run(command)
            if not well:
                raise Wrong(f"this failed: {command}\n{output}")
            self.ran += 1
            if lines:
                self.compared += 1
                if not Expected(lines).is_met_by(output):
                    raise Wrong(f"{command}: the page shows\n{chr(10).join(lines)}\nand it was\n{output}")

    def stands_elsewhere(self, block, file):
        there = file.read_text()
        for line in block.text.splitlines():
            command = line.partition("#")[0].strip()
            if command and command not in there:
                raise Wrong(f"{file.relative_to(ROOT)} does not run: {command}")
        self.not_run.append((block.line, f"{file.relative_to(ROOT)} runs it"))

    def run_with(self, name, block):
        """A program in another language, or one for the shell that needs libraries."""
        folder = self.options.have.get(name)
        if folder is None:
            self.not_run.append((block.line, f"the libraries of {name} are not here"))
            return
        modules = self.home / "node_modules"
        if name == "node" and not modules.exists():
            modules.symlink_to(folder / "node_modules")
            self.shell.run(f"export PATH={shlex.quote(str(folder))}:$PATH")
        if block.language == "sh":
            return self.run(block)
        path = self.home / f"block-{block.line}.{ENDINGS[block.language]}"
        path.write_text(block.text + "\n")
        program = [ROOT / "tests/docs/client.py", path] if "client" in block.attributes else [path]
        interpreter = "node" if name == "node" else folder / "bin/python"
        well, output = self.shell.run(shlex.join(map(str, [interpreter, *program])))
        if not well:
            raise Wrong(f"this program failed:\n{output}")
        self.ran += 1

    def check_sentences(self, text):
        """Commands within sentences: that there are such commands, with such flags."""
        prose = re.sub(r"^\s*```.*?^\s*```$", "", text, flags=re.M | re.S)
        spans = re.findall(r"(?<!`)`((?:sudo |[A-Z_]+=\S+ )*taskmesh [^`]+)`(?!`)", prose)
        for span in dict.fromkeys(spans):
            words = shlex.split(re.sub(r"[][]", "", span))
            words = words[words.index("taskmesh") + 1:]
            end = next((n for n, word in enumerate(words) if word in ("--", "|", ">", "<", "&&")), len(words))
            command = ["taskmesh", *words[:end], "--help"]
            done = subprocess.run(command, env=self.environment, cwd=self.home, capture_output=True, text=True)
            if done.returncode != 0:
                raise Wrong(f"{self.name()}: `{span}` is no command: {done.stderr}")
            self.checked += 1


def pages():
    summary = (ROOT / "docs/SUMMARY.md").read_text()
    book = [ROOT / "docs" / path for path in re.findall(r"\]\(([^)]+\.md)\)", summary)]
    return [ROOT / "README.md", *book, *sorted((ROOT / "config/templates").glob("*.md"))]


def inside(options):
    """One page, in namespaces made for it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    signal.signal(signal.SIGALRM, timed_out)
    with tempfile.TemporaryDirectory(prefix="taskmesh-docs-", ignore_cleanup_errors=True) as folder:
        try:
            page = Page(options.pages[0], options, pathlib.Path(folder))
            page.follow()
        except Wrong as wrong:
            print(f"FAILED: {wrong}")
            return 1
        finally:
            end_all()
        counts = f"{page.ran} blocks run, {page.compared} outputs compared, {page.checked} commands in sentences"
        print(f"{page.name()}: {counts}")
        for line, reason in page.not_run:
            print(f"    not run: {page.name()}:{line}: {reason}")
    return 0


def timed_out(*_):
    raise TimeoutError


def end_all():
    """Everything that the page started: this process is the first of its namespace."""
    if os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)


def cannot(namespaces):
    """Exit status 0: pages can be run. Else says why not."""
    try:
        done = subprocess.run([*namespaces, "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    except OSError as error:
        print(f"namespaces can't be made: {error}")
        return 1
    if done.returncode != 0:
        print(f"namespaces can't be made: {done.stderr.strip()}")
    return done.returncode


def planted_pass(follow):
    """How many of the pages that must fail do not, or not for their reason."""
    passed = 0
    with tempfile.TemporaryDirectory(prefix="taskmesh-planted-") as folder:
        page = pathlib.Path(folder, "page.md")
        for text, reason in PLANTED:
            page.write_text(text + "\n")
            done = follow(page)
            if done.returncode == 0 or reason not in done.stdout:
                print(f"FAILED: this page must fail, and say {reason!r}:\n{text}\n{done.stdout}{done.stderr}")
                passed += 1
    print(f"{len(PLANTED)} planted pages, {len(PLANTED) - passed} found wrong, as they are")
    return passed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path, nargs="?")
    parser.add_argument("--have", action="append", default=[], metavar="NAME=FOLDER", help="libraries that blocks need")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("pages", type=pathlib.Path, nargs="*")
    parser.add_argument("--can", action="store_true", help="only say whether pages can be run here")
    options = parser.parse_intermixed_args()
    namespaces = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.getuid() != 0:
        namespaces.append("--map-root-user")
    if options.can:
        return cannot(namespaces)
    options.binary = options.binary.absolute()
    options.have = {name: pathlib.Path(folder).absolute() for name, folder in (h.split("=", 1) for h in options.have)}
    given_pages = [path.absolute() for path in options.pages]
    options.pages = given_pages or pages()
    if options.inside:
        return inside(options)
    given = [f"--have={name}={folder}" for name, folder in options.have.items()]

    def follow(page):
        command = [*namespaces, sys.executable, __file__, "--inside", *given, options.binary, page]
        return subprocess.run(command, capture_output=True, text=True)

    failed = 0 if given_pages else planted_pass(follow)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as several:
        for done in several.map(follow, options.pages):
            print(done.stdout + done.stderr, end="")
            failed += done.returncode != 0
    print(f"{len(options.pages)} pages, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
