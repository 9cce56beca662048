"""Run, model, data -> what it is, what it answers, how good it is and why: the commands that show something."""
