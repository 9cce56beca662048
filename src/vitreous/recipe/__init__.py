"""Data facts + budget -> RunConfig: what a run will do, each choice with its reason."""
