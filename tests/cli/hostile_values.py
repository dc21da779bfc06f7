"""What a hostile or careless hand types for any option: words, and files made for it in a folder."""

from __future__ import annotations

import os
from pathlib import Path

WORDS = {
    "nothing": "",
    "a blank": " ",
    "nan": "nan",
    "inf": "inf",
    "minus infinity": "-inf",
    "beyond floats": "1e400",
    "minus one": "-1",
    "zero": "0",
    "beyond integers": "9" * 30,
    "digits without end": "9" * 6000,
    "null": "null",
    "soon": "soon",
    "no day": "2026-13-45",
    "year zero": "0000-00-00",
    "half a list": "region=[",
    "half a mapping": "{",
    "a mapping": "smoke={seconds: {a: b}}",
    "a number for a mapping": "smoke=5",
    "a mapping for a word": "region={a: 1}",
    "keys of odd types": "labels={1: 2, null: 3, [a]: b}",
    "a null": "region=null",
    "a count of nan": "min_replicas=.nan",
    "a count of infinity": "traffic=.inf",
    "a bad date": "region=2026-13-45",
    "a self-reference": "labels=&a [*a]",
    "deep YAML": "labels=" + "[" * 20_000,
    "a Python object": "region=!!python/object/apply:os.system [true]",
    "equal signs": "a=b=c",
    "no key": "=x",
    "no name": ".=x",
    "dots": "smoke.a.b.c=1",
    "a fault's options": "quota-exhausted,count=nan,after_bytes=inf",
    "a fault's text": "upload-cut,after_bytes=soon",
    "long": "x" * 5000,
    "above": "../..",
    "not UTF-8": "\udcff\udcfe",
    "terminal escapes": "\x1b]0;owned\x07\x1b[31m",
    "a line end": "a\nerror: b\r\n  cure: c",
    "other writing": "\u202eabc \u00e9\u4e2d\U0001f3a8",
    "rich's markup": "[red]bold[/] [/nonsense]",
    "a format": "{0} %s %n $HOME `id` ;id",
    "a URL": "http://[::1",
    "a URL of a file": "file:///etc/passwd",
    "passwd": "/etc/passwd",
    "no device": "/dev/null",
    "under a file": "/etc/passwd/x",
    "the kernel's": "/proc/self/nothing",
    "a name too long": "/tmp/" + "n" * 300,
}


def make_files(folder: Path) -> dict[str, str]:
    """Hostile files and folders, by a name."""
    made = {
        "an empty file": b"",
        "a binary file": bytes(range(256)) * 50,
        "YAML that is not UTF-8": b"region: \xff\xfe\n",
        "YAML of NUL": b"region: \0\n",
        "half of a YAML": b"region: [\n",
        "deep YAML in a file": b"[" * 20_000,
        "a YAML of a list": b"- 1\n- 2\n",
        "a YAML of a word": b"soon\n",
        "a YAML of odd keys": b"1: 2\nnull: 3\n[a]: 4\n2026-01-01: 5\n",
        "a YAML of nulls": b"region: null\nsmoke: null\narchive: null\nlabels: null\narguments: null\n",
        "a YAML of wrong types": b"region: [1]\nsmoke: 5\ntraffic: .nan\nlabels: {a: {b: c}}\n",
        "a YAML with a bad date": b"region: 2026-13-45\n",
        "a YAML with itself inside": b"labels: &a {b: *a}\n",
        "a YAML with an object": b"region: !!python/object/apply:os.system [exit]\n",
        "a YAML with a folder for a file": b"archive: /etc\nsmoke: {expected: /etc}\n",
        "a YAML of calls": b"upload: null\ndeploy: 7\nendpoint: [null]\n",
        "calls of null": b"deploy: {accelerator_count: null, min_replica_count: null, machine_type: null}\n",
        "calls of nan": b"deploy: {accelerator_count: .nan}\npredict: {timeout: .nan}\n",
        "calls of infinity": b"deploy: {min_replica_count: .inf}\nendpoint: {inference_timeout: .inf}\n",
        "calls of words": b"deploy: {max_replica_count: many}\nendpoint: {inference_timeout: soon}\n",
        "calls of lists": b"upload: {artifact_uri: [a]}\ndeploy: {accelerator_type: [b]}\narchive: [c]\n",
        "calls of dates": b"init: {location: 2026-01-01}\npredict: {timeout: 2026-01-01}\n",
        "a ZIP's head": b"PK\x03\x04" + bytes(100),
    }
    for number, content in enumerate(made.values()):
        (folder / f"file{number}").write_bytes(content)
    found = {name: str(folder / f"file{number}") for number, name in enumerate(made)}
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "\udcff.yaml").write_bytes(b"region: [")
    os.mkfifo(folder / "pipe")
    names = {"a folder": "folder", "a link to itself": "loop", "a link to nothing": "dangling"}
    names |= {"a name that is not UTF-8": "\udcff.yaml", "a file that is not there": "missing"}
    return found | {name: str(folder / file) for name, file in names.items()}
