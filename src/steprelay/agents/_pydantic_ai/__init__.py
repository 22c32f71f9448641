"""The half of the Pydantic AI adapter that needs the framework: imported by its first step, never before."""
