"""How fast sapd is, as ratios: each goal against a peer, in turn, in one run.

`python -m tests.benchmarks [FOLDER [GOAL ...]]` makes its logs in FOLDER (default: here; 3 GB) and
prints a table in Markdown. Goals are the functions of `__main__` (default: all). The peers are
Debian's grep, mawk, tail, logtail2 (package logtail) and makemap (sendmail-bin). The folder should
lie on ext4 or XFS, and nothing else should be at work.

`day` times nothing: it shows what each setting buys and costs.
"""
