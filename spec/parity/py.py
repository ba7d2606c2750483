"""Performs operations with upstash-box: argv is URL KEY DIRECTORY OPERATIONS, the last a file with a JSON list
of { index, box, code }. Prints one JSON object a line: { index, error } for each operation, then { members, enums,
unlike_async }: the public members of the SDK's classes with the names of their options, the members of its enums, and
the classes whose async kin has other members."""

import enum
import inspect
import json
import os
import sys

import upstash_box as sdk
from upstash_box._async import client as async_classes
from upstash_box._sync import client as classes

url, key, directory, file = sys.argv[1:]
with open(file, encoding="utf-8") as stream:
    operations = json.load(stream)

os.environ["UPSTASH_BOX_API_KEY"] = key


def read(stream):
    """Reads a stream to its end."""
    for _ in stream:
        pass


for operation in operations:
    error = None
    base = os.environ["UPSTASH_BOX_BASE_URL"] = f"{url}/py/{operation['index']}"
    try:
        names = {"sdk": sdk, "Box": sdk.Box, "EphemeralBox": sdk.EphemeralBox, "read": read,
                 "base": base, "key": key, "tmp": directory}
        if operation.get("box"):
            names["box"] = sdk.Box.get(operation["box"])
        exec(operation["code"], names)
    except Exception as raised:  # whatever an operation raises is its result
        error = f"{type(raised).__name__}: {raised}"
    print(json.dumps({"index": operation["index"], "error": error}), flush=True)


def options_of(function):
    """The names of what a function takes by name."""
    names = []
    for name, each in inspect.signature(function).parameters.items():
        if each.kind == each.KEYWORD_ONLY:
            names.append(name)
        elif each.kind == each.VAR_KEYWORD:
            names += getattr(sdk.types, str(each.annotation).split("[")[1].rstrip("]")).__annotations__
    return names


def methods_of(cls, static):
    return {name: options_of(getattr(cls, name)) for name, each in vars(cls).items()
            if not name.startswith("_") and isinstance(each, classmethod) == static
            and (static or inspect.isfunction(each))}


INSTANCES = {
    "box": "Box", "ephemeral": "EphemeralBox", "run": "Run", "stream": "StreamRun", "tab": "Tab",
    "box.agent": "AgentNamespace", "box.exec": "ExecNamespace", "box.files": "FilesNamespace",
    "box.git": "GitNamespace", "box.schedule": "ScheduleNamespace", "box.skills": "SkillsNamespace",
    "box.labels": "LabelsNamespace", "box.browser": "BrowserNamespace", "box.browser.tab": "BrowserTabNamespace",
    "box.browser.recordings": "BrowserRecordingsNamespace", "recording": "BrowserRecordingHandle",
    "s": "ExecSessionHandle",
}
members = {label: methods_of(getattr(classes, name), False) for label, name in INSTANCES.items()}
members["Box"] = methods_of(sdk.Box, True)
members["EphemeralBox"] = methods_of(sdk.EphemeralBox, True)
enums = {name: {member: each.value for member, each in value.__members__.items()}
         for name, value in vars(sdk).items() if isinstance(value, type) and issubclass(value, enum.Enum)}


def public(cls):
    """The names of what a class has, in the words of the sync SDK."""
    return {"close" if name == "aclose" else name for name in vars(cls) if not name.startswith("_")}


# The async classes are not performed: whether they have what the sync ones have that are.
unlike_async = [name for name in INSTANCES.values()
                if public(getattr(classes, name)) != public(getattr(async_classes, "Async" + name))]
print(json.dumps({"members": members, "enums": enums, "unlike_async": unlike_async}))
