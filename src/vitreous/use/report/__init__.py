"""Run folder -> report.html: one page to look at, with its pictures inside."""
