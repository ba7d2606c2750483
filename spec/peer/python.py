"""Drives a server with upstash-box: argv is KIND BASE_URL KEY DIRECTORY, KIND `sync` or `async`, DIRECTORY one to work
in. Prints one JSON object a line: { case, error } for each case, then { unused }: the public methods of the SDK that no
case has called. The spec beside this file judges them."""

import asyncio
import base64
import functools
import hashlib
import http.server
import inspect
import json
import os
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request

import upstash_box as sdk

kind, base_url, api_key, directory = sys.argv[1:]
os.chdir(directory)
os.environ["UPSTASH_BOX_BASE_URL"], os.environ["UPSTASH_BOX_API_KEY"] = base_url, api_key

if kind == "async":
    from upstash_box._async import client as module
    loop = asyncio.new_event_loop()
    PREFIX = "Async"
else:
    from upstash_box._sync import client as module
    PREFIX = ""

Box, EphemeralBox = getattr(sdk, PREFIX + "Box"), getattr(sdk, PREFIX + "EphemeralBox")
CLASSES = ["Box", "EphemeralBox", "Run", "StreamRun", "AgentNamespace", "ExecNamespace", "ExecSessionHandle",
           "FilesNamespace", "GitNamespace", "ScheduleNamespace", "SkillsNamespace", "LabelsNamespace"]

# ------------------------------------------------------------------------------------- what is called

methods, called = set(), set()


def note(cls, name, value):
    """Puts a method that notes its call in the place of one."""
    label = f"{cls}.{'close' if name == 'aclose' else name}"
    methods.add(label)
    inner = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value

    @functools.wraps(inner)
    def noting(*args, **options):
        called.add(label)
        return inner(*args, **options)

    return type(value)(noting) if isinstance(value, (classmethod, staticmethod)) else noting


for cls in CLASSES:
    owner = getattr(module, PREFIX + cls)
    for member, value in list(vars(owner).items()):
        if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, (classmethod, staticmethod))):
            setattr(owner, member, note(cls, member, value))


def go(value):
    """What a call gives, of either client."""
    return loop.run_until_complete(value) if inspect.isawaitable(value) else value


def every(stream):
    """All chunks of a stream."""
    stream = go(stream)
    if kind == "sync":
        return list(stream), stream

    async def collect():
        return [chunk async for chunk in stream]
    return go(collect()), stream


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def refused(call, status):
    """Makes a call that the server has to refuse with this status; returns what it said."""
    try:
        go(call())
    except sdk.BoxError as error:
        same(error.status_code, status)
        return str(error)
    raise AssertionError("it was not refused")


def eventually(look, want):
    for _ in range(100):
        got = look()
        if got == want:
            return
        time.sleep(0.05)
    same(got, want)


# ---------------------------------------------------------------------------------------------- cases

AGENT = r"""
local harness = require("lbox").harness
harness.run(function(ctx, emit)
  if ctx.prompt:find("fail") then error("told to", 0) end
  emit.text("looking around\n")
  emit.tool { tool_call_id = "t1", name = "list", input = { path = "." } }
  emit.tool_result { tool_call_id = "t1", output = "names" }
  if ctx.prompt:find("linger") then os.execute("sleep 60") end
  local schema = ctx.json_schema and '{"answer": 42}'
  return { output = schema or "prompt: " .. ctx.prompt, input_tokens = 3, output_tokens = 2 }
end)
"""
HARNESS = {"command": "lbox", "args": ["/workspace/home/agent.lua"], "protocol": "box-sse-v1"}

box = None
cases = []


def case(name):
    """Notes the function below as a case."""
    def add(function):
        cases.append((name, function))
        return function
    return add


@case("boxes are made, found and listed")
def boxes_are_made_found_and_listed():
    global box
    box = go(Box.create(name="py-" + kind, labels=["peer:" + kind], size="medium", env={"GREETING": "hello"},
                        agent={"harness": sdk.Agent.CUSTOM, "model": "none", "custom_harness": HARNESS}))
    same(go(box.get_status())["status"], "idle")
    same(box.size, "medium")
    same(box.model_config.harness if hasattr(box.model_config, "harness") else box.model_config["harness"], "custom")
    same([each.id for each in go(Box.list(label="peer:" + kind))], [box.id])
    same(go(Box.get(box.id)).id, box.id)
    same(go(Box.get_by_name("py-" + kind)).id, box.id)
    go(go(Box.get(box.id)).close() if kind == "sync" else go(Box.get(box.id)).aclose())
    refused(lambda: Box.get("no-such-box"), 404)


@case("commands have their output and exit code")
def commands_have_their_output_and_exit_code():
    run = go(box.exec.command("echo $GREETING; echo err >&2; exit 3"))
    same((run.exit_code, run.stdout, run.stderr, str(run.status)), (3, "hello\n", "err\n", "failed"))
    run = go(box.exec.code(code="print(6 * 7)", lang="python"))
    same((run.exit_code, run.result), (0, "42\n"))
    same(go(box.exec.code(code="import time; print(1, flush=True); time.sleep(60)", lang="python", timeout=500)).exit_code,
         124)


@case("output is streamed")
def output_is_streamed():
    chunks, stream = every(box.exec.stream("for i in 1 2 3; do echo line $i; sleep 0.1; done; exit 7"))
    same("".join(each.data for each in chunks[:-1]), "line 1\nline 2\nline 3\n")
    assert len(chunks) >= 3, len(chunks)
    same((chunks[-1].exit_code, stream.exit_code), (7, 7))
    assert chunks[-1].cpu_ns > 0
    chunks, _ = every(box.exec.stream_code(code="console.log(1 + 1)", lang="js"))
    same("".join(each.data for each in chunks[:-1]), "2\n")
    left = go(box.exec.stream("echo begun; sleep 60"))
    go(left.close() if kind == "sync" else left.aclose())


@case("sessions have pipes and terminals")
def sessions_have_pipes_and_terminals():
    got = {"out": b"", "err": b""}

    def keep(name):
        def add(bytes_):
            got[name] += bytes_ if isinstance(bytes_, bytes) else bytes_.encode()
        return add

    session = go(box.exec.session(cmd="echo err >&2; sort; exit 42", on_stdout=keep("out"), on_stderr=keep("err"),
                                  env=["A=1", "LD_PRELOAD=x"], cwd="/tmp"))
    assert session.pid > 0
    go(session.write("b\na\n"))
    go(session.end_stdin())
    same((go(session.wait()), got["out"], got["err"]), (42, b"a\nb\n", b"err\n"))
    got["out"] = b""
    session = go(box.exec.session(cmd="stty size; tty; read x; stty size; sleep 60", tty=True, rows=33, cols=101,
                                  on_stdout=keep("out")))
    time.sleep(0.3)
    go(session.resize(44, 202))
    go(session.write("\n"))

    def seen():
        if kind == "async":
            go(asyncio.sleep(0.01))
        return got["out"].startswith(b"33 101\r\n/dev/pts/") and b"44 202" in got["out"]
    eventually(seen, True)
    go(session.kill("SIGTERM"))
    same(go(session.wait()), 143)
    session = go(box.exec.session(argv=["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]))
    time.sleep(0.3)
    go(session.terminate(200))
    same(go(session.wait()), 137)
    session = go(box.exec.session(argv=["sleep", "4711"]))
    go(session.close())
    eventually(lambda: go(box.exec.command("pgrep -fx 'sleep 4711'")).stdout, "")


@case("files are all there is to them")
def files_are_all_there_is_to_them():
    files = box.files
    go(files.write(path="agent.lua", content=AGENT))
    same(go(files.read("agent.lua")), AGENT)
    go(files.write(path="dir/blob", content="AP8K", encoding="base64"))
    same(go(files.read("dir/blob", encoding="base64")), "AP8K")
    same(go(files.read("agent.lua", offset=1, length=5)), "local")
    same(sorted((each.name, each.is_dir) for each in go(files.list())), [("agent.lua", False), ("dir", True)])
    stat = go(files.stat("dir/blob"))
    same((stat.type, stat.size), ("file", 3))
    go(files.mkdir("deep/er", parents=True))
    go(files.rename("dir/blob", "deep/er/blob"))
    refused(lambda: files.remove("deep"), 409)
    go(files.remove("deep", recursive=True))
    refused(lambda: files.stat("deep"), 404)
    content = os.urandom(3_000_000)
    with open("local.bin", "wb") as stream:
        stream.write(content)
    go(files.upload([{"path": "local.bin", "destination": "up/there.bin"}]))
    same(go(box.exec.command("sha256sum < up/there.bin")).stdout.split()[0], hashlib.sha256(content).hexdigest())
    os.remove("local.bin")
    go(files.download(folder="up"))
    found = [os.path.join(place, name) for place, _, names in os.walk(".") for name in names if name == "there.bin"]
    with open(found[0], "rb") as stream:
        same(stream.read() == content, True)


@case("agents run")
def agents_run():
    tools = []
    run = go(box.agent.run(prompt="hello agent", on_tool_use=lambda use: tools.append(use["name"])))
    same((str(run.status), run.result, run.cost.input_tokens, tools), ("completed", "prompt: hello agent", 3, ["list"]))
    same([each.id for each in go(box.list_runs()) if each.type == "agent"], [run.id])
    chunks, _ = every(box.agent.stream(prompt="again"))
    same([each.type for each in chunks], ["start", "text-delta", "tool-call", "tool-result", "finish", "stats"])
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    same(go(box.agent.run(prompt="typed", response_schema=schema)).result, {"answer": 42})
    try:
        go(box.agent.run(prompt="fail"))
        raise AssertionError("it did not fail")
    except sdk.BoxError as error:
        assert "told to" in str(error), error


@case("a webhook hears of a run, and a run can be cancelled")
def a_webhook_hears_of_a_run_and_a_run_can_be_cancelled():
    told = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.append((self.headers["X-Secret"], json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    hook = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    where = {"url": f"http://127.0.0.1:{hook.server_port}/", "headers": {"X-Secret": "s"}}
    run = go(box.agent.run(prompt="told", webhook=where))
    eventually(lambda: len(told), 1)
    same((told[0][0], told[0][1]["status"], told[0][1]["run_id"], told[0][1]["output"]),
         ("s", "completed", run.id, "prompt: told"))
    run = go(box.agent.run(prompt="linger", webhook=where))
    go(run.cancel())
    eventually(lambda: [each.status for each in go(box.list_runs()) if each.id == run.id], ["cancelled"])
    hook.shutdown()


@case("files go with a prompt")
def files_go_with_a_prompt():
    with open("note.txt", "w", encoding="utf-8") as stream:
        stream.write("noted")
    same(str(go(box.agent.run(prompt="see the file", files=["note.txt"])).status), "completed")
    data = base64.b64encode(b"noted").decode()
    run = go(box.agent.run(prompt="this", files=[{"data": data, "media_type": "text/plain", "filename": "n.txt"}]))
    same(str(run.status), "completed")


@case("git clones, commits and pushes")
def git_clones_commits_and_pushes():
    go(box.exec.command("git init -q --bare -b main /srv/x.git; git init -q -b main /opt/seed; cd /opt/seed; echo one > f; "
                        "git add f; git -c user.name=a -c user.email=a@b commit -qm one; git push -q /srv/x.git main"))
    git = box.git
    go(git.clone(repo="/srv/x.git", folder="x", depth=1))
    go(box.cd("x"))
    go(git.checkout(branch="work"))
    config = go(git.update_config(user_name="Ann", user_email="ann@example.com"))
    same((config.git_user_name, config.git_user_email), ("Ann", "ann@example.com"))
    go(box.files.write(path="f", content="two\n"))
    assert "+two" in go(git.diff())
    same(go(git.status()).strip(), "M f")
    commit = go(git.commit(message="two"))
    go(git.push())
    result = go(git.exec(args=["ls-remote", "origin", "work"]))
    same((result.exit_code, result.output), (0, f"{commit.sha}\trefs/heads/work\n"))
    refused(lambda: git.create_pr(title="t"), 424)
    refused(lambda: git.create_issue(title="t"), 424)
    go(box.cd("/workspace/home"))
    same(box.cwd, "/workspace/home")


@case("schedules are kept")
def schedules_are_kept():
    schedule = box.schedule
    made = go(schedule.exec(cron="*/5 * * * *", command=["echo", "hi"], webhook_url="http://127.0.0.1:9/"))
    go(schedule.pause(made.id))
    same(str(go(schedule.get(made.id)).status).split(".")[-1].lower(), "paused")
    go(schedule.resume(made.id))
    same(go(schedule.update(made.id, cron="0 0 * * *", command=["true"])).cron, "0 0 * * *")
    other = go(schedule.agent(cron="0 9 * * *", prompt="report", timeout=1000))
    same({each.id for each in go(schedule.list())}, {made.id, other.id})
    go(schedule.delete(made.id))
    go(schedule.delete(other.id))
    same(go(schedule.list()), [])
    refused(lambda: schedule.exec(cron="nonsense", command=["true"]), 400)


@case("labels and skills are kept")
def labels_and_skills_are_kept():
    same(go(box.labels.add("second")), ["peer:" + kind, "second"])
    same(go(box.labels.remove("second")), ["peer:" + kind])
    same(go(box.labels.list()), ["peer:" + kind])
    go(box.skills.add("owner/repo/skill"))
    same(go(box.skills.list()), ["owner/repo/skill"])
    go(box.skills.remove("owner/repo/skill"))
    same(go(box.skills.list()), [])


@case("ports are opened")
def ports_are_opened():
    go(box.exec.command("mkdir www; echo content > www/f; python3 -m http.server --directory www 8000 >/dev/null 2>&1 & "
                        "sleep 1"))
    opened = go(box.get_public_url(8000, bearer_token=True))
    asked = urllib.request.Request(opened.url + "/f", headers={"Authorization": "Bearer " + opened.token})
    same(urllib.request.urlopen(asked).read(), b"content\n")
    try:
        urllib.request.urlopen(opened.url)
        raise AssertionError("it let everybody in")
    except urllib.error.HTTPError as error:
        same(error.code, 401)
    same([each.url for each in go(box.list_public_urls())["public_urls"]], [opened.url])
    go(box.delete_public_url(8000))
    same(go(box.list_public_urls())["public_urls"], [])


@case("settings change")
def settings_change():
    go(box.configure_model("another"))
    go(box.configure_custom_harness({**HARNESS, "args": ["/workspace/home/agent.lua"]}))
    go(box.update_network_policy({"mode": "deny-all"}))
    same(go(Box.get(box.id)).network_policy["mode"], "deny-all")
    go(box.set_init_command("echo began >> began"))
    same(go(box.get_init_command()), "echo began >> began")
    go(box.pause())
    same(go(box.get_status())["status"], "paused")
    go(box.resume())
    same(go(box.get_status())["status"], "idle")
    eventually(lambda: go(box.exec.command("cat began")).stdout, "began\n")
    go(box.delete_init_command())
    same(go(box.get_init_command()) or "", "")


@case("variables reach boxes to come")
def variables_reach_boxes_to_come():
    name = "EVERYWHERE_" + kind.upper()
    go(Box.set_all_env({}))
    go(Box.set_env(name, "yes"))
    same(go(Box.list_env()), {name: "********"})
    short = go(EphemeralBox.create(ttl=60))
    same(go(short.exec.command("echo $" + name)).stdout, "yes\n")
    go(short.delete())
    go(Box.delete_env(name))
    same(go(Box.list_env()), {})


@case("snapshots are taken and restored")
def snapshots_are_taken_and_restored():
    snapshot = go(box.snapshot(name="as it is"))
    same((snapshot.status, [each.id for each in go(box.list_snapshots())]), ("ready", [snapshot.id]))
    copy = go(Box.from_snapshot(snapshot.id, name="copy-" + kind, env={"MORE": "more"}))
    same(go(copy.exec.command("echo $GREETING $MORE; cat www/f")).stdout, "hello more\ncontent\n")
    same(go(copy.agent.run(prompt="copied")).result, "prompt: copied")
    short = go(EphemeralBox.from_snapshot(snapshot.id, ttl=60, name="short-" + kind))
    assert 50 < short.expires_at - time.time() <= 60, short.expires_at
    go(short.cd("www"))
    same(go(short.exec.command("cat f")).stdout, "content\n")
    same(go(short.get_status())["status"], "idle")
    own = go(short.snapshot(name="of a short one"))
    same([each.id for each in go(short.list_snapshots())], [own.id])
    go(short.delete_snapshot(own.id))
    same(go(EphemeralBox.get_by_name("short-" + kind)).id, short.id)
    go(short.close() if kind == "sync" else short.aclose())
    go(EphemeralBox.delete_boxes(box_ids=[short.id]))
    go(Box.delete_boxes(box_ids=[copy.id]))
    go(box.delete_snapshot(snapshot.id))
    same(go(box.list_snapshots()), [])
    first, second = go(box.snapshot(name="one")), go(box.snapshot(name="two"))
    go(Box.delete_snapshots(snapshot_ids=[first.id]))
    go(EphemeralBox.delete_snapshots(snapshot_ids=[second.id]))
    same(go(box.list_snapshots()), [])


@case("what happens is logged")
def what_happens_is_logged():
    run = go(box.agent.run(prompt="to be logged"))
    logs = go(box.logs())
    assert all(each.level in ("info", "warn", "error") and each.source in ("system", "agent", "user") for each in logs)
    assert any(each.message == "the box was paused" for each in logs), logs
    same(len(go(box.logs(offset=1, limit=1))), 1)
    assert any("to be logged" in each.message for each in go(run.logs())), go(run.logs())


@case("what is not there is said")
def what_is_not_there_is_said():
    said = refused(lambda: Box.create(browser=True), 501)
    assert "browser" in said, said
    said = refused(lambda: Box.create(attach_headers={"example.com": {"A": "b"}}), 501)
    assert "attach_headers" in said, said
    refused(lambda: Box.list(api_key="box_wrong"), 401)


@case("boxes are deleted")
def boxes_are_deleted():
    go(box.delete())
    same([each.id for each in go(Box.list(label="peer:" + kind))], [])
    refused(lambda: Box.get(box.id), 404)


for name, run_case in cases:
    error = None
    try:
        run_case()
    except Exception:  # whatever goes wrong is the case's result
        error = traceback.format_exc()
    print(json.dumps({"case": name, "error": error}), flush=True)
print(json.dumps({"unused": sorted(methods - called)}))
