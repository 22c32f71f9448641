"""The agent of `steprelay demo`, and of `steprelay dev` where there is no other: questions about a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic_ai import Agent, Tool

from .model import OfflineModel
from .tools import Folder, calculate

INSTRUCTIONS = (
    "You answer questions about the files of one folder. Look before you answer: list the files, search for several words at "
    "once, read around the best hits. Quote what you rely on, each quote with its `path:line`. Use `calculate` for arithmetic. "
    "If the folder does not answer the question, say so."
)
READ = {"effect": "read", "timeout": 30}
MODELS = {"OPENAI_API_KEY": "openai-chat:gpt-5-mini", "ANTHROPIC_API_KEY": "anthropic:claude-sonnet-4-5"}


def build(root: Path | str, model: Any = None) -> Agent[None, str]:
    """An agent over the files under `root`.

    `model`: a `pydantic_ai` model or its name; else `STEPRELAY_MODEL`; else a provider whose key is in the environment;
    else the offline model, which needs none.
    """
    folder = Folder(Path(root))
    tools = [Tool(t, metadata=READ) for t in (folder.list_files, folder.search, folder.read_file, calculate)]
    return Agent(model or _model(), name="demo", instructions=INSTRUCTIONS, tools=tools)


def _model() -> Any:
    if name := os.environ.get("STEPRELAY_MODEL"):
        return OfflineModel() if name == "offline" else name
    return next((model for key, model in MODELS.items() if os.environ.get(key)), None) or OfflineModel()
