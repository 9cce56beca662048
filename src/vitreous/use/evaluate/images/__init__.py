"""Finished run -> results for single images and groups of them: wrong labels, weak groups, answers to compare."""
