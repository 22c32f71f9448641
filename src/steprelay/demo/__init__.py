"""An agent to try things with: it answers questions about a folder, with a real model or without any."""
