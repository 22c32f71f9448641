"""The agent of this site. Here: `steprelay dev agent.py`. There: Netlify's functions, one step a request."""

from steprelay import App, Reply, Text, Turn


async def agent(turn: Turn, ctx: object) -> Reply | str:
    """Counts the words of the prompt, one a step. Put a Pydantic AI `Agent(...)` in its place when you have a model."""
    counted, words = turn.state or 0, str(turn.prompt).split()
    if counted < len(words):
        return Reply(state=counted + 1, parts=(Text(text=f"{counted + 1}: {words[counted]}"),))
    return f"{counted} words"


app = App(agent, anonymous_start="same-origin")  # visitors of this site's own pages may start runs
