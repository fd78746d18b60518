"""What is not as it was, and should be told: pure deciders over past runs and over the mesh as its coordinator sees it.

Robust statistics, so that one odd run neither hides a change nor makes one: medians, medians of absolute deviations and
exact tests, from the standard library's `statistics` and `math`. scipy has no more of what is needed here, takes 60 MB
and a second to load, and a node has 90 MB in all; numpy's part of it would be faster, but this runs once a run, in a
thread. Every decision errs on the side of silence: an alert that nobody believes is worse than a late one.
"""
