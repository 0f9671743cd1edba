"""A chat process without a model, for tests of the app: it says the prompt or the conversation back, or does
what the prompt says: "vary" is answered otherwise each time, with the checkpoint's step and the seed it was given."""

import json
import os
import sys
from pathlib import Path

FACTS = {"kind": "base", "parameters": 912_384, "context": 256, "vocab_size": 512, "device": "CPU", "precision": "fp32"}


def say(**reply):
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def done(id_, tokens, reason="end", seed=7):
    say(id=id_, done={"reason": reason, "tokens": tokens, "seconds": 1.0, "tokens_per_s": tokens, "seed": seed})


def main():
    folder = Path(sys.argv[-1])
    name, step = folder.parts[-3].split("-")[-2], int(folder.name.rpartition("-")[2])
    if (folder / "refuse").exists() or not folder.exists():
        say(error={"title": "The checkpoint is damaged.", "hint": "Use the one before."})
        sys.exit(2)
    kind = "chat" if (folder / "chat_template.jinja").exists() else "base"
    say(ready={**FACTS, "kind": kind, "name": name, "step": step, "digest": f"d{step}"})
    varied = 0
    for line in sys.stdin:
        request = json.loads(line)
        if "cancel" in request:
            continue
        turns = [f"{turn['role']}: {turn['content']}" for turn in request.get("messages", [])]
        prompt, id_ = request.get("prompt", " | ".join(turns)), request["id"]
        if prompt == "die":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(3)
        if prompt == "idle":
            say(ended="idle")
            os._exit(0)
        if prompt == "refuse":
            say(id=id_, error={"title": "No.", "hint": "Ask otherwise."})
        elif prompt == "on and on":
            say(id=id_, text=" and")
            assert "cancel" in json.loads(sys.stdin.readline())
            done(id_, 1, "cancelled")
        elif prompt.rpartition(": ")[2] == "vary":
            varied += 1
            say(id=id_, text=f"take {varied} of step {step}, seed {request['sampling']['seed']}")
            done(id_, 4, seed=request["sampling"]["seed"] or 100 + varied)
        elif prompt.startswith("long"):
            for number in range(int(prompt.split()[1])):
                say(id=id_, text=f" word{number}")
            done(id_, 4)
        else:
            for start in range(0, len(prompt), 97):
                say(id=id_, text=prompt[start : start + 97])
            done(id_, len(prompt))


main()
