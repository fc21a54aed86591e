"""A program that imports holdfast and then forks, as pre-forking servers and multiprocessing do.

``python forking.py URL PREFIX APPS CHILDREN`` prints what each child found of its own requests:
those that did not do what they answered.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import holdfast

LARGE_BYTES = 1_500_000


def child(name: str, url: str, prefix: str, apps: Path) -> list[str]:
    """The deeds that differ from their answers."""
    wrong = []
    content = f"of {name}"
    with holdfast.connect_sync(servers=url, prefix=prefix) as hf:
        for data in (content.encode(), content.encode() * (LARGE_BYTES // len(content))):
            stored = hf.put(data)
            digest = hashlib.sha256(data).hexdigest()
            if stored.digest != digest or hf.get(digest) != data:
                wrong.append(f"put of {len(data)} bytes")
        (apps / "site" / "who").write_text(content)
        key = hf.snapshots.create("site").key
        if hf.snapshots.read(key, "who").decode() != content:
            wrong.append("create")
        hf.snapshots.restore(key, app=name)
        restored = apps / name / "who"
        if not restored.exists() or restored.read_text() != content:
            wrong.append("restore")
    return wrong


def main(url: str, prefix: str, apps: str, children: str) -> None:
    """Fork one child after the other, and print what they say."""
    found = {}
    for number in range(int(children)):
        name = f"child-{number}"
        reading, writing = os.pipe()
        if not os.fork():
            try:
                said = child(name, url, prefix, Path(apps))
            except BaseException as error:  # noqa: BLE001  (told to the parent)
                said = [repr(error)]
            os.write(writing, json.dumps(said).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            found[name] = json.loads(pipe.read() or b'["no word"]')
        os.wait()
    print(json.dumps(found))  # noqa: T201  (for the test)


if __name__ == "__main__":
    main(*sys.argv[1:])
