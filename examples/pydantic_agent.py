"""A Pydantic AI agent that answers questions about this folder and, if a person agrees, keeps the answer as a note.

    steprelay dev examples/pydantic_agent.py

With OPENAI_API_KEY or ANTHROPIC_API_KEY it thinks; without, an offline model looks the words up (and never asks to save a note).
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic_ai import Agent

from steprelay import App, Limits
from steprelay.demo.model import OfflineModel
from steprelay.demo.tools import Folder

NOTES = Path("notes.md")
MODELS = {"OPENAI_API_KEY": "openai-chat:gpt-5-mini", "ANTHROPIC_API_KEY": "anthropic:claude-sonnet-4-5"}

folder = Folder(Path.cwd())
agent = Agent(
    next((name for key, name in MODELS.items() if os.environ.get(key)), None) or OfflineModel(),
    instructions="Answer from the files alone and name them. Offer to keep answers that are worth it with save_note.",
)
agent.tool_plain(metadata={"effect": "read", "timeout": 30})(folder.list_files)
agent.tool_plain(metadata={"effect": "read", "timeout": 30})(folder.search)
agent.tool_plain(metadata={"effect": "read", "timeout": 30})(folder.read_file)


@agent.tool_plain(metadata={"effect": "needs_approval"})
def save_note(title: str, text: str) -> str:
    """Append a note to notes.md. A person is asked first, and it is appended at most once."""
    with NOTES.open("a", encoding="utf-8") as notes:
        notes.write(f"## {title}\n\n{text}\n\n")
    return f"saved to {NOTES}"


app = App({"notes": agent}, limits=Limits(steps=30))
