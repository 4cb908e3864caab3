"""Load models in a process of its own and say what happened, as one JSON list on stdout.

The argument is JSON: {"loads": [[model, data folder], ...], "texts": [...]}. Each load gives its vectors or its error, the addresses the
process connected to, the kinds of layers it built meanwhile, and which of HEAVY the process has imported so far.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from torch.nn.modules.module import register_module_module_registration_hook

from mcp_server.encoders.open_clip import load_text_encoder
from mcp_server.errors import SearchServerError

HEAVY = ("open_clip", "torchvision", "timm", "transformers", "huggingface_hub")


def main(order: dict[str, Any]) -> list[dict[str, Any]]:
    connections: list[str] = []
    built: set[str] = set()
    sys.addaudithook(lambda event, args: connections.append(str(args[1])) if event == "socket.connect" else None)
    register_module_module_registration_hook(lambda _module, _name, child: built.add(type(child).__name__))
    outcomes: list[dict[str, Any]] = []
    for model, data_folder in order["loads"]:
        connections.clear()
        built.clear()
        try:
            encoder = load_text_encoder(model, "cpu", Path(data_folder))
            vectors = [encoder.encode_text(text).vector.tolist() for text in order["texts"]]
            outcome: dict[str, Any] = {"vectors": vectors, "logit_scale": encoder.logit_scale, "logit_bias": encoder.logit_bias}
        except SearchServerError as error:
            outcome = {"error": type(error).__name__, "message": str(error), "remedy": getattr(error, "remedy", "")}
        imported = [name for name in HEAVY if name in sys.modules]
        outcomes.append({**outcome, "connections": list(connections), "built": sorted(built), "imported": imported})
    return outcomes


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))))
