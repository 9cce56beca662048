"""Run folder -> report.html: one self-contained page with figures."""
