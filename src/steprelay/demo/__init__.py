"""An agent to try things with: it answers questions about a folder, with a real model or without any."""

QUESTION = "How does steprelay make sure a tool is never run twice?"
"""What `steprelay demo` asks about steprelay's own sources."""
ELSEWHERE = "What is in this folder, and where would you begin to read?"
"""What it asks about any other folder."""
