"""What trainings have come to, for readers: tables, charts, and one page of HTML.

Read first `groups.py` (which seeds belong together), then `page.py`. `inspection.py` looks into a
trained network; what draws computes nothing.
"""
